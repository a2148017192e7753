//! The whole ledger, read from the tables by SQL.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, QueryResult};

use crate::harness::{Kind, TestDatabase, database, decimal::Decimal};

pub struct AccountRow {
    pub currency_code: String,
    pub balance: Decimal,
    pub held: Decimal,
    pub overdraft_limit: Decimal,
    pub unlimited_overdraft: bool,
    pub below_limit: bool,
    pub sequence: i64,
    pub version: i64,
    pub last_hash: String,
}

pub struct EntryRow {
    pub sequence: i64,
    pub transaction_id: String,
    pub amount: Decimal,
    pub balance_after: Decimal,
    pub create_time_us: i64,
    pub effective_time_us: Option<i64>,
    pub hash: String,
}

pub struct RequestRow {
    pub transaction_id: String,
    pub is_applied: bool,
    /// Holds are placed, updated and released without a transaction.
    pub is_transaction: bool,
}

pub struct HoldRow {
    pub account_id: String,
    pub state: String,
    pub amount: Decimal,
    pub captured: Decimal,
    /// How often it was updated.
    pub updates: i64,
}

/// A snapshot of all tables.
pub struct LedgerDump {
    pub accounts: BTreeMap<String, AccountRow>,
    /// By account, in the order of the sequence.
    pub entries: BTreeMap<String, Vec<EntryRow>>,
    pub requests: Vec<RequestRow>,
    pub holds: Vec<HoldRow>,
    /// The account of each change of attributes.
    pub account_changes: Vec<String>,
}

impl LedgerDump {
    pub async fn read(database: &TestDatabase) -> Self {
        let session = database.connect().await;
        let begin = match database.kind {
            Kind::Sqlite => "BEGIN",
            Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        };
        session.execute_unprepared(begin).await.expect("a snapshot");
        let dump = Self::read_in(&session, database.kind).await.expect("the ledger can be read");
        session.execute_unprepared("COMMIT").await.expect("the snapshot ends");
        session.close().await.expect("the session ends");
        dump
    }

    async fn read_in(session: &DatabaseConnection, kind: Kind) -> Result<Self, DbErr> {
        let mut dump = Self {
            accounts: BTreeMap::new(),
            entries: BTreeMap::new(),
            requests: Vec::new(),
            holds: Vec::new(),
            account_changes: Vec::new(),
        };
        let accounts = format!(
            "SELECT account_id, currency_code, {}, {}, {}, unlimited_overdraft, sequence, version, {},
                 below_limit FROM accounts",
            text("balance"),
            text("held"),
            text("overdraft_limit"),
            hex("last_hash", kind)
        );
        for row in database::rows(session, &accounts).await? {
            dump.accounts.insert(row.try_get_by_index(0)?, account_row(&row)?);
        }
        let entries = format!(
            "SELECT coalesce(a.account_id, 'key ' || e.account_key), e.sequence, {}, {}, {},
                 e.create_time_us, {}, e.effective_time_us
             FROM entries e LEFT JOIN accounts a ON a.account_key = e.account_key
             ORDER BY e.account_key, e.sequence",
            uuid("e.transaction_id", kind),
            text("e.amount"),
            text("e.balance_after"),
            hex("e.hash", kind)
        );
        for row in database::rows(session, &entries).await? {
            dump.entries.entry(row.try_get_by_index(0)?).or_default().push(entry_row(&row)?);
        }
        let requests = format!(
            "SELECT {}, rejection IS NULL, kind NOT IN ('place_hold', 'update_hold', 'release_hold')
             FROM requests",
            uuid("transaction_id", kind)
        );
        for row in database::rows(session, &requests).await? {
            dump.requests.push(RequestRow {
                transaction_id: hyphenated(&row.try_get_by_index::<String>(0)?),
                is_applied: row.try_get_by_index(1)?,
                is_transaction: row.try_get_by_index(2)?,
            });
        }
        let holds = format!(
            "SELECT account_id, h.state, {}, {}, coalesce(updates, 0) FROM holds h JOIN accounts USING (account_key)
             LEFT JOIN (SELECT hold_id, count(*) AS updates FROM requests
                 WHERE kind = 'update_hold' AND rejection IS NULL GROUP BY hold_id) updated
                 ON updated.hold_id = h.hold_id",
            text("h.amount"),
            text("coalesce(h.captured_amount, '0')")
        );
        for row in database::rows(session, &holds).await? {
            dump.holds.push(HoldRow {
                account_id: row.try_get_by_index(0)?,
                state: row.try_get_by_index(1)?,
                amount: Decimal::parse(&row.try_get_by_index::<String>(2)?),
                captured: Decimal::parse(&row.try_get_by_index::<String>(3)?),
                updates: row.try_get_by_index(4)?,
            });
        }
        for row in database::rows(session, "SELECT account_id FROM account_changes").await? {
            dump.account_changes.push(row.try_get_by_index(0)?);
        }
        Ok(dump)
    }

    pub fn entries_count(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }
}

fn account_row(row: &QueryResult) -> Result<AccountRow, DbErr> {
    Ok(AccountRow {
        currency_code: row.try_get_by_index(1)?,
        balance: Decimal::parse(&row.try_get_by_index::<String>(2)?),
        held: Decimal::parse(&row.try_get_by_index::<String>(3)?),
        overdraft_limit: Decimal::parse(&row.try_get_by_index::<String>(4)?),
        unlimited_overdraft: row.try_get_by_index(5)?,
        sequence: row.try_get_by_index(6)?,
        version: row.try_get_by_index(7)?,
        last_hash: row.try_get_by_index(8)?,
        below_limit: row.try_get_by_index(9)?,
    })
}

fn entry_row(row: &QueryResult) -> Result<EntryRow, DbErr> {
    Ok(EntryRow {
        sequence: row.try_get_by_index(1)?,
        transaction_id: hyphenated(&row.try_get_by_index::<String>(2)?),
        amount: Decimal::parse(&row.try_get_by_index::<String>(3)?),
        balance_after: Decimal::parse(&row.try_get_by_index::<String>(4)?),
        create_time_us: row.try_get_by_index(5)?,
        hash: row.try_get_by_index(6)?,
        effective_time_us: row.try_get_by_index(7)?,
    })
}

/// As text, so that no driver converts the number.
fn text(column: &str) -> String {
    format!("CAST({column} AS TEXT)")
}

fn hex(column: &str, kind: Kind) -> String {
    match kind {
        Kind::Sqlite => format!("lower(hex({column}))"),
        Kind::Postgres => format!("encode({column}, 'hex')"),
    }
}

fn uuid(column: &str, kind: Kind) -> String {
    match kind {
        Kind::Sqlite => hex(column, kind),
        Kind::Postgres => text(column),
    }
}

fn hyphenated(uuid: &str) -> String {
    uuid::Uuid::parse_str(uuid).unwrap_or_else(|_| panic!("not a UUID: {uuid}")).to_string()
}
