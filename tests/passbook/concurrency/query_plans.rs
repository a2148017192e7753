//! PostgreSQL plans the statements of the write path once a connection. A plan that is made while
//! the tables are empty, or have three rows, must be right when they have a million: each row is
//! found by its key.

use crate::harness::*;

/// Rows in each table, of other accounts; times `PASSBOOK_TEST_SCALE`.
const OTHERS: usize = 100_000;
/// Rows of tables and of indexes that one change may look at.
const ROWS_MAX: i64 = 20;
/// Pages (8 KiB) that one change may touch.
const PAGES_MAX: i64 = 60;

/// Changes of every kind, so that every statement is executed; returns how many. The names must not
/// have been used.
async fn changes(client: &mut Client, round: usize) -> i64 {
    for account in ["a", "b"] {
        open_funded(client, &format!("{account}-{round}"), "100").await;
    }
    let (a, b) = (format!("a-{round}"), format!("b-{round}"));
    for number in 0..4 {
        let made = client.deposit(deposit(&a, "1")).await.expect("it is made").into_inner();
        let id = made.transaction.map(|it| it.transaction_id).unwrap_or_default();
        reversed(client, reversal(&id)).await;
        let request = transfer(&a, &b, "1");
        for _ in 0..2 {
            client.transfer(request.clone()).await.expect("it is made, and made only once");
        }
        client.withdraw(withdrawal(&a, "1000000")).await.expect_err("that is too much");
        for ending in ["captured", "released", "left"] {
            let hold_id = format!("{ending}-{round}-{number}");
            place(client, hold_named(&hold_id, &b, "1")).await;
            match ending {
                "captured" => drop(captured(client, capture(&hold_id)).await),
                "released" => drop(released(client, release(&hold_id)).await),
                _ => {}
            }
        }
        place_and_expire(client, hold_named(&format!("expired-{round}-{number}"), &b, "1")).await;
    }
    freeze(client, &b).await;
    unfreeze(client, &b).await;
    2 * 2 + 4 * 11 + 2
}

async fn fill(database: &TestDatabase) {
    let columns = "currency_code, currency_scale, balance, held, overdraft_limit, \
        unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
        update_time_us, caller";
    let of_n = format!("FROM {}", database.numbers(OTHERS * scale()));
    for sql in [
        format!(
            "INSERT INTO accounts (account_id, {columns}) SELECT 'other-' || n, {columns}
             {of_n}, accounts WHERE account_id = 'a-0'"
        ),
        format!(
            "INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, request_id,
                 description, labels, create_time_us, update_time_us)
             SELECT 'h-' || n, 'other-' || n, 1, 'open', CASE WHEN n % 2 = 0 THEN n END,
                 'r-' || n, '', '{{}}', 1, 1 {of_n}"
        ),
        format!(
            "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind,
                 description, labels, entry_names, create_time_us, reverses_transaction_id)
             SELECT '', 'r-' || n, fingerprint, gen_random_uuid(), kind, description, labels,
                 entry_names, create_time_us, gen_random_uuid() {of_n},
                 (SELECT * FROM requests WHERE reverses_transaction_id IS NOT NULL LIMIT 1) r"
        ),
        format!(
            "INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after,
                 create_time_us, hash)
             SELECT 'other-' || n, 1, gen_random_uuid(), amount, balance_after, create_time_us, hash
             {of_n}, (SELECT * FROM entries LIMIT 1) e"
        ),
    ] {
        database.execute(&sql).await;
    }
}

/// What all sessions have looked at so far, by table: rows of the table and of its indexes, and
/// pages.
async fn looked_at(database: &TestDatabase) -> Vec<(String, i64, i64)> {
    let sql = "SELECT relname::text,
            (seq_tup_read + coalesce(idx_tup_fetch, 0)
                + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes i
                   WHERE i.relid = t.relid))::bigint,
            (heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::bigint
        FROM pg_stat_user_tables t JOIN pg_statio_user_tables USING (relid, relname)
        ORDER BY relname";
    let rows = database.rows(sql).await;
    let get = |row: &sea_orm::QueryResult| {
        let number = |place| row.try_get_by_index(place).expect("a number");
        (row.try_get_by_index(0).expect("a name"), number(1), number(2))
    };
    rows.iter().map(get).collect()
}

/// Sessions tell what they have looked at when a transaction ends, once a second at most.
async fn told(client: &mut Client) {
    tokio::time::sleep(ms(1100)).await;
    for _ in 0..8 {
        client.deposit(deposit("a-0", "1")).await.expect("it is made");
    }
}

async fn is_right_at_many_rows(analyzed: bool) {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    for table in ["accounts", "holds", "requests", "entries", "account_changes"] {
        let off = "SET (autovacuum_enabled = false)";
        database.execute(&format!("ALTER TABLE {table} {off}")).await;
    }
    let server = Server::start(&database).await;
    let mut client = server.client();
    changes(&mut client, 0).await;
    let server = if analyzed {
        drop(server);
        database.execute("ANALYZE").await;
        Server::start(&database).await
    } else {
        server
    };
    let mut client = server.client();
    // On both connections that write.
    for round in 1..4 {
        changes(&mut client, round).await;
    }
    fill(&database).await;

    told(&mut client).await;
    let before = looked_at(&database).await;
    let mut count = 8;
    for round in 4..6 {
        count += changes(&mut client, round).await;
    }
    told(&mut client).await;
    let after = looked_at(&database).await;

    for ((table, rows, pages), (_, rows_before, pages_before)) in after.iter().zip(&before) {
        let (rows, pages) = ((rows - rows_before) / count, (pages - pages_before) / count);
        println!("{table}: {rows} rows, {pages} pages a change");
        assert!(rows <= ROWS_MAX, "{table}: a change looks at {rows} rows");
        assert!(pages <= PAGES_MAX, "{table}: a change touches {pages} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_were_made_for_empty_tables_are_right_at_many_rows() {
    is_right_at_many_rows(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_were_made_for_a_few_rows_are_right_at_many() {
    is_right_at_many_rows(true).await;
}
