//! The wall: the rate at which PostgreSQL takes changes from a single connection, by UNNEST.

use std::time::{Duration, Instant};

use sea_orm::sqlx::{self, Connection, PgConnection};
use uuid::Uuid;

use crate::programs;

/// The number of changes in one database transaction.
const CHANGES: usize = 1000;

const REQUESTS: &str = "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, \
    kind, entry_keys, create_time_us) SELECT '', request_id, $3, transaction_id, 'deposit', \
    '1:1', 1 FROM (SELECT UNNEST($1::text[]) AS request_id, UNNEST($2::uuid[]) AS transaction_id) new";
const ENTRIES: &str = "INSERT INTO entries (account_key, sequence, transaction_id, amount, \
    balance_after, create_time_us, hash) SELECT account_key, sequence, transaction_id, 1.00, \
    sequence, 1, $4 FROM (SELECT UNNEST($1::bigint[]) AS account_key, \
    UNNEST($2::bigint[]) AS sequence, UNNEST($3::uuid[]) AS transaction_id) new";
const ACCOUNTS: &str = "UPDATE accounts SET balance = new.sequence, sequence = new.sequence, \
    version = version + 1, update_time_us = 1 FROM UNNEST($1::text[], $2::bigint[]) \
    AS new(account_id, sequence) WHERE accounts.account_id = new.account_id COLLATE \"C\"";

/// The rate over this number of accounts, in changes a second.
pub async fn rate(url: &str, accounts: usize, duration: Duration) -> anyhow::Result<f64> {
    let mut connection = PgConnection::connect(url).await?;
    for statement in [
        programs::insert_accounts("wall", accounts as u32, 0).as_str(),
        "VACUUM ANALYZE accounts",
        "CHECKPOINT",
        // The settings of Passbook's workers.
        "SET plan_cache_mode = force_generic_plan",
        "SET enable_seqscan = off",
        "SET enable_hashjoin = off",
        "SET enable_mergejoin = off",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    let mut sequences = vec![0_i64; accounts];
    let mut changes = 0;
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let mut touched = Vec::with_capacity(CHANGES);
        let (mut keys, mut numbers) = (Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            let account = fastrand::usize(..accounts);
            sequences[account] += 1;
            keys.push(account as i64 + 1);
            numbers.push(sequences[account]);
            touched.push(account);
        }
        touched.sort_unstable();
        touched.dedup();
        let touched_ids: Vec<_> = touched.iter().map(|it| format!("wall.{it}")).collect();
        let last: Vec<_> = touched.iter().map(|it| sequences[*it]).collect();
        let transaction_ids: Vec<_> = (0..CHANGES).map(|_| Uuid::now_v7()).collect();
        let request_ids: Vec<_> = (0..CHANGES).map(|_| random_id()).collect();
        let (hash, fingerprint) = (vec![0_u8; 32], vec![0_u8; 16]);
        let mut transaction = connection.begin().await?;
        sqlx::query(REQUESTS)
            .bind(&request_ids)
            .bind(&transaction_ids)
            .bind(&fingerprint)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(ENTRIES)
            .bind(&keys)
            .bind(&numbers)
            .bind(&transaction_ids)
            .bind(&hash)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(ACCOUNTS).bind(&touched_ids).bind(&last).execute(&mut *transaction).await?;
        transaction.commit().await?;
        changes += CHANGES;
    }
    Ok(changes as f64 / begun.elapsed().as_secs_f64())
}

/// A random request id, as long as those of `passbook bench`.
fn random_id() -> String {
    format!("{}.12", Uuid::from_u128(fastrand::u128(..)))
}
