//! Reading and locking accounts.
//!
//! # The lock
//!
//! A transaction changes a balance only after it has locked the account's row (`SELECT ... FOR
//! UPDATE`, SeaORM's `lock_exclusive()`) and read it under the lock. One statement locks several
//! rows, always in byte order of their ids, so that two transactions never wait for each other.
//! `ORDER BY` on a column collated "C" sets that order; the order of the ids in a list would not.
//! On SQLite `lock_exclusive()` adds nothing: BEGIN IMMEDIATE locks the whole database.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DatabaseTransaction, EntityTrait,
    FromQueryResult, Order, QueryFilter, QueryOrder, QueryResult, QuerySelect, QueryTrait, Select,
    sea_query::{Asterisk, Expr, LockBehavior, LockType, Query, SimpleExpr},
};

use crate::{
    domain::{
        account::{Account, label_bytes},
        ids::AccountId,
        query::{AccountFilter, AccountRange},
    },
    storage::{
        StorageError, Store,
        connect::session::APPLICATION_NAME,
        dialect::DatabaseKind,
        entity::accounts::{Column, Entity, Model},
        queries::{
            held::{HeldSum, held_sum},
            page::{self, EXAMINED_MAX, Examined, Expiring, ROWS_SIZE_MAX, UNRECORDED_MAX},
        },
    },
};

/// Bytes of labels that exceed any response.
const ACCOUNTS_SIZE_MAX: usize = 4 * 1024 * 1024;

impl Store {
    /// One account, as last committed.
    pub async fn account(
        &self,
        account_id: &AccountId,
        expire_until_us: i64,
    ) -> Result<Expiring<Option<Account>>, StorageError> {
        let ids = BTreeSet::from([account_id.clone()]);
        let Expiring { value, expired_us, many_unrecorded } =
            self.accounts(&ids, expire_until_us).await?;
        let value = value.and_then(|mut accounts| accounts.pop());
        Ok(Expiring { value, expired_us, many_unrecorded })
    }

    /// The accounts among these ids that exist, as of one instant, in no particular order. None if their
    /// labels exceed any response.
    pub async fn accounts(
        &self,
        account_ids: &BTreeSet<AccountId>,
        expire_until_us: i64,
    ) -> Result<Expiring<Option<Vec<Account>>>, StorageError> {
        let query = select(self.kind(), account_ids);
        let (Expiring { value, expired_us, many_unrecorded }, is_cut) =
            read(&self.readers, query, expire_until_us, ACCOUNTS_SIZE_MAX).await?;
        Ok(Expiring { value: (!is_cut).then_some(value), expired_us, many_unrecorded })
    }

    /// Those of these accounts that exist.
    pub async fn existing_accounts(
        &self,
        account_ids: &BTreeSet<AccountId>,
    ) -> Result<BTreeSet<AccountId>, StorageError> {
        Ok(keys(&self.readers, account_ids).await?.into_keys().collect())
    }

    /// At most `limit` accounts above `after` in these ranges, which are disjoint and ascending, in
    /// order of their ids. With a filter, examines at most [`EXAMINED_MAX`].
    pub async fn list_accounts(
        &self,
        filter: &AccountFilter,
        ranges: &[AccountRange],
        after: Option<&AccountId>,
        limit: u64,
        expire_until_us: i64,
    ) -> Result<Expiring<Examined<Account, AccountId>>, StorageError> {
        let mut list = Examined { rows: Vec::new(), next: None };
        let mut latest_us = None;
        let mut many_unrecorded = Vec::new();
        let mut left = EXAMINED_MAX;
        for (start, end) in id_ranges(ranges, after) {
            let range = Entity::find().filter(start.clone()).filter(end);
            let mut query = range.clone();
            if !filter.is_empty() {
                let (examined, last) =
                    page::examine(&self.readers, range, Column::AccountId, Order::Asc, left)
                        .await?;
                let Some(last): Option<String> = last else { continue };
                // In place of the end: of two upper bounds SQLite would search by the first.
                query = Entity::find().filter(start).filter(Column::AccountId.lte(last.as_str()));
                query = apply(filter, query, self.kind());
                left -= examined;
                list.next = (left == 0).then(|| AccountId::from_stored(&last));
            }
            let query = query.order_by_asc(Column::AccountId);
            let query = query.limit(limit.saturating_sub(list.rows.len() as u64));
            let size: usize = list.rows.iter().map(|it: &Account| label_bytes(&it.labels)).sum();
            let size_max = ROWS_SIZE_MAX.saturating_sub(size);
            let (found, is_cut) = read(&self.readers, query, expire_until_us, size_max).await?;
            list.rows.extend(found.value);
            latest_us = Ord::max(latest_us, found.expired_us);
            many_unrecorded.extend(found.many_unrecorded);
            if is_cut {
                list.next = list.rows.last().map(|last| last.account_id.clone());
            }
            if list.next.is_some() || list.rows.len() as u64 >= limit {
                break;
            }
        }
        Ok(Expiring { value: list, expired_us: latest_us, many_unrecorded })
    }
}

fn apply(filter: &AccountFilter, mut query: Select<Entity>, kind: DatabaseKind) -> Select<Entity> {
    if let Some(currency_code) = &filter.currency_code {
        query = query.filter(Column::CurrencyCode.eq(currency_code.as_str()));
    }
    if let Some(state) = filter.state {
        query = query.filter(Column::State.eq(state.name()));
    }
    if !filter.labels.is_empty() {
        query = query.filter(Expr::cust_with_values(
            kind.has_labels("accounts.labels", kind.placeholder()),
            [serde_json::json!(filter.labels).to_string()],
        ));
    }
    query
}

/// The ids above `after` in these ranges, as the lower and the upper bounds of the primary key.
fn id_ranges(ranges: &[AccountRange], after: Option<&AccountId>) -> Vec<(SimpleExpr, SimpleExpr)> {
    let after = after.map_or("", AccountId::as_str);
    let ahead = ranges.iter().filter(|range| range.end.as_str() > after);
    let condition = |range: &AccountRange| {
        let start = match range.start.as_str() {
            start if start > after => Column::AccountId.gte(start),
            _ => Column::AccountId.gt(after),
        };
        (start, Column::AccountId.lt(range.end.as_str()))
    };
    ahead.map(condition).collect()
}

/// A row read without a lock.
#[derive(FromQueryResult)]
struct ReadRow {
    #[sea_orm(nested)]
    account: Model,
    /// See [`expired_holds`].
    expired: Option<String>,
}

/// The holds on an account that have expired and whose rows do not say so, as [`held_sum`]. Holds that
/// expire after `until_us` count as open.
pub fn expired_holds(kind: DatabaseKind, account: &str, until_us: &str) -> String {
    let (least, clock) = (kind.least(), kind.statement_clock());
    held_sum(kind, account, &format!("h.open_until_us <= {least}({clock}, {until_us})"))
}

/// Reads accounts as they are by the clock, until their labels have more than `size_max` bytes, and
/// returns whether there are more. Expired holds do not count, whether or not a change has recorded that:
/// `UnitOfWork` counts in the same way.
async fn read(
    connection: &DatabaseConnection,
    query: Select<Entity>,
    expire_until_us: i64,
    size_max: usize,
) -> Result<(Expiring<Vec<Account>>, bool), StorageError> {
    let kind = DatabaseKind::of(connection);
    let expired = expired_holds(kind, "accounts", kind.placeholder());
    let query = query.expr_as(Expr::cust_with_values(expired, [expire_until_us]), "expired");
    let mut read = Expiring { value: Vec::new(), expired_us: None, many_unrecorded: Vec::new() };
    let add = |row: &QueryResult| {
        ReadRow::from_query_result(row, "")?.add_to(&mut read)?;
        Ok(((), read.value.last().map_or(0, |account| label_bytes(&account.labels))))
    };
    let (_, is_cut) =
        page::rows_within(connection, query.build(kind.into()), size_max, add).await?;
    Ok((read, is_cut))
}

impl ReadRow {
    fn add_to(self, read: &mut Expiring<Vec<Account>>) -> Result<(), StorageError> {
        let mut account = Account::try_from(self.account)?;
        let currency = account.currency.clone();
        if let Some(expired) = &self.expired {
            let sum = HeldSum::parse(expired, &currency);
            let sum = sum.and_then(|it| Some((currency.sum_of_units(it.units)?, it)));
            let (amount, HeldSum { holds, expire_time_us, .. }) = sum.ok_or_else(|| {
                StorageError::Corrupt(format!("account {}: the expired holds", account.account_id))
            })?;
            account.expire_holds(holds, amount, expire_time_us);
            read.expired_us = Ord::max(read.expired_us, Some(expire_time_us));
            if holds > UNRECORDED_MAX {
                read.many_unrecorded.push(account.account_id.clone());
            }
        }
        read.value.push(account);
        Ok(())
    }
}

/// The ids of the accounts with these keys.
pub async fn ids(
    connection: &impl ConnectionTrait,
    account_keys: impl Iterator<Item = i64>,
) -> Result<BTreeMap<i64, AccountId>, StorageError> {
    let condition: SimpleExpr = match DatabaseKind::of(connection) {
        DatabaseKind::Sqlite => {
            let list = serde_json::Value::from_iter(account_keys).to_string();
            Expr::cust_with_values("account_key IN (SELECT value FROM json_each(?))", [list])
        }
        DatabaseKind::Postgres => Column::AccountKey.eq_any(account_keys),
    };
    let ids: Vec<(i64, String)> = Entity::find()
        .filter(condition)
        .select_only()
        .columns([Column::AccountKey, Column::AccountId])
        .into_tuple()
        .all(connection)
        .await?;
    Ok(ids.into_iter().map(|(key, id)| (key, AccountId::from_stored(&id))).collect())
}

/// The keys of those of these accounts that exist.
pub async fn keys(
    connection: &impl ConnectionTrait,
    account_ids: &BTreeSet<AccountId>,
) -> Result<BTreeMap<AccountId, i64>, StorageError> {
    let keys: Vec<(String, i64)> = select(DatabaseKind::of(connection), account_ids)
        .select_only()
        .columns([Column::AccountId, Column::AccountKey])
        .into_tuple()
        .all(connection)
        .await?;
    Ok(keys.into_iter().map(|(id, key)| (AccountId::from_stored(&id), key)).collect())
}

/// Those of these accounts that exist, as their rows are.
pub async fn by_id(
    connection: &impl ConnectionTrait,
    account_ids: &BTreeSet<AccountId>,
) -> Result<Vec<Account>, StorageError> {
    let rows = select(DatabaseKind::of(connection), account_ids).all(connection).await?;
    rows.into_iter().map(Account::try_from).collect()
}

/// What a transaction does about a row that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Wait for each row, in order of ids, for as long as the transaction's lock timeout says.
    Wait,
    /// Leave the row out.
    SkipLocked,
}

/// The outcome of locking rows. An id in none of the three sets does not exist.
#[derive(Default)]
pub struct LockedAccounts {
    /// The rows that are now locked by this transaction.
    pub accounts: Vec<Account>,
    /// The rows that a transaction of another Passbook server has locked. It ends soon.
    pub locked_by_peers: BTreeSet<AccountId>,
    /// The rows that another program has locked, nobody knows for how long.
    pub locked_elsewhere: BTreeSet<AccountId>,
    /// The time in microseconds since the Unix epoch by the database's clock, if there was a
    /// row to bring it.
    pub now_us: Option<i64>,
}

/// Locks these accounts and reads them, in order of their ids. Does not find out who has locked
/// those that are left out.
pub async fn lock(
    transaction: &DatabaseTransaction,
    account_ids: &BTreeSet<AccountId>,
    mode: LockMode,
) -> Result<LockedAccounts, StorageError> {
    let kind = DatabaseKind::of(transaction);
    let rows = select(kind, account_ids).order_by_asc(Column::AccountId);
    let rows = match mode {
        LockMode::Wait => rows.lock_exclusive(),
        LockMode::SkipLocked => rows.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
    };
    // The clock stands outside of the locking statement: inside, PostgreSQL may read it before it
    // waits for a lock, and a change would get an earlier time than the one it waited for.
    let rows = Query::select()
        .column(Asterisk)
        .expr_as(Expr::cust(kind.clock()), "now_us")
        .from_subquery(rows.into_query(), "locked")
        .to_owned();
    let mut locked = LockedAccounts::default();
    for row in transaction.query_all(&rows).await? {
        locked.accounts.push(Model::from_query_result(&row, "")?.try_into()?);
        locked.now_us = Ord::max(locked.now_us, row.try_get("", "now_us")?);
    }
    Ok(locked)
}

/// Who has locked a row: PostgreSQL writes the transaction id of the owner into the row (`xmax`),
/// and the owner holds the lock of that id. A peer's transaction that is older than
/// [`PEER_TRANSACTION_TIME_MAX`] hangs, and counts as another program's.
const LOCK_HOLDERS: &str = "\
    SELECT account_id, EXISTS ( \
        SELECT 1 FROM pg_locks held JOIN pg_stat_activity holder ON holder.pid = held.pid \
        WHERE held.locktype = 'transactionid' AND held.granted \
            AND held.transactionid = accounts.xmax AND holder.application_name = $2 \
            AND holder.xact_start > clock_timestamp() - $3 * interval '1 ms') AS is_peer \
    FROM accounts WHERE account_id = ANY($1)";

/// The age from which a transaction hangs: far above that of a healthy one.
const PEER_TRANSACTION_TIME_MAX: Duration = Duration::from_secs(1);

/// Of these accounts, those that another Passbook server has locked, and the others that exist.
/// Both are empty on SQLite, which locks no rows.
pub async fn lock_holders(
    transaction: &DatabaseTransaction,
    account_ids: &BTreeSet<AccountId>,
) -> Result<(BTreeSet<AccountId>, BTreeSet<AccountId>), StorageError> {
    if account_ids.is_empty() || DatabaseKind::of(transaction) == DatabaseKind::Sqlite {
        return Ok((BTreeSet::new(), BTreeSet::new()));
    }
    let ids = DatabaseKind::Postgres.texts(account_ids.iter().map(|id| id.as_str().to_owned()));
    let age_ms = PEER_TRANSACTION_TIME_MAX.as_secs_f64() * 1000.0;
    let values = [ids, APPLICATION_NAME.into(), age_ms.into()];
    let kind = DatabaseKind::of(transaction);
    let statement = kind.statement(LOCK_HOLDERS, values);
    let (mut peers, mut others) = (BTreeSet::new(), BTreeSet::new());
    for row in transaction.query_all_raw(statement).await? {
        let account_id: String = row.try_get("", "account_id")?;
        let rows = if row.try_get("", "is_peer")? { &mut peers } else { &mut others };
        rows.insert(AccountId::from_stored(&account_id));
    }
    Ok((peers, others))
}

fn select(kind: DatabaseKind, account_ids: &BTreeSet<AccountId>) -> Select<Entity> {
    let ids = account_ids.iter().map(|account_id| account_id.as_str().to_owned());
    // One parameter for any number of accounts, so that the statement is prepared once.
    let condition: SimpleExpr = match kind {
        DatabaseKind::Sqlite => {
            let list = serde_json::Value::from_iter(ids).to_string();
            Expr::cust_with_values("account_id IN (SELECT value FROM json_each(?))", [list])
        }
        DatabaseKind::Postgres => Column::AccountId.eq_any(ids),
    };
    Entity::find().filter(condition)
}
