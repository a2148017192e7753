//! Reading holds.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, Order, QueryFilter, QueryOrder,
    QueryResult, QuerySelect, QueryTrait,
    sea_query::{Cond, Expr, ExprTrait, SimpleExpr},
};

use crate::{
    domain::{
        account::{Account, label_bytes},
        hold::{Hold, HoldState},
        ids::{AccountId, HoldId},
        query::HoldFilter,
    },
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::{
            accounts::{OF_ACCOUNT, account_of},
            holds::{Column, Entity, Model},
        },
        queries::{
            accounts,
            page::{self, EXAMINED_MAX, Examined, Expiring, ROWS_SIZE_MAX, now_us},
        },
        tables::HOLDS,
        write::transaction::WriteTransaction,
    },
};

impl Store {
    /// The hold with the first of these ids that exists, as it is by the clock. None if `is_visible`
    /// hides its account, which is judged before the rest is read.
    pub async fn hold(
        &self,
        hold_ids: &[HoldId; 2],
        expire_until_us: i64,
        is_visible: impl Fn(&AccountId) -> bool,
    ) -> Result<Expiring<Option<Hold>>, StorageError> {
        let keys = Entity::find()
            .select_only()
            .columns([Column::HoldId, Column::AccountKey])
            .filter(Column::HoldId.is_in(hold_ids.iter().map(HoldId::as_str)))
            .into_tuple::<(String, i64)>();
        let mut keys = keys.all(&self.readers).await?;
        keys.sort_by_key(|(hold_id, _)| *hold_id != *hold_ids[0].as_str());
        let first = keys.into_iter().next();
        // Also if there is no hold, so that it takes as long as one that is hidden.
        let account_keys = first.iter().map(|(_, account_key)| *account_key);
        let account_ids = accounts::ids(&self.readers, account_keys).await?;
        let visible = first.filter(|(_, key)| account_ids.get(key).is_some_and(is_visible));
        let Some((hold_id, _)) = visible else {
            return Ok(Expiring { value: None, expired_us: None, many_unrecorded: Vec::new() });
        };
        let ids = BTreeSet::from([HoldId::from_stored(&hold_id)]);
        let (now_us, hold) = by_key(&self.readers, &ids, &BTreeSet::new(), 0).await?;
        let now_us = Ord::min(now_us, expire_until_us);
        let (mut value, expired_us) = as_of(hold.into_iter().map(|hold| (hold, now_us)));
        Ok(Expiring { value: value.pop(), expired_us, many_unrecorded: Vec::new() })
    }

    /// At most `limit` holds of an account as they are by the clock, in order of their ids. With a
    /// filter, examines at most [`EXAMINED_MAX`].
    pub async fn list_holds(
        &self,
        account: &Account,
        filter: &HoldFilter,
        limit: u64,
        expire_until_us: i64,
    ) -> Result<Expiring<Examined<Hold, HoldId>>, StorageError> {
        let kind = self.kind();
        let mut range = Cond::all().add(Column::AccountKey.eq(account.account_key));
        if let Some(after) = &filter.after {
            range = range.add(Column::HoldId.gt(after.as_str()));
        }
        let mut next = None;
        let mut query = Entity::find()
            .filter(range.clone())
            .order_by_asc(Column::HoldId)
            .expr_as(time(kind, expire_until_us), "now_us");
        if let Some(state) = filter.state {
            let range = Entity::find().filter(range);
            let (examined, last) =
                page::examine(&self.readers, range, Column::HoldId, Order::Asc, EXAMINED_MAX)
                    .await?;
            let last: Option<String> = last.filter(|_| examined == EXAMINED_MAX);
            next = last.as_deref().map(HoldId::from_stored);
            if let Some(last) = &next {
                query = query.filter(Column::HoldId.lte(last.as_str()));
            }
            query = query.filter(is_in(state, &time(kind, expire_until_us)));
        }
        let query = query.limit(limit).build(kind.into());
        let (holds, is_cut) = page::rows_within(&self.readers, query, ROWS_SIZE_MAX, |row| {
            let hold = Model::from_query_result(row, "")?;
            let hold = hold.into_hold(&account.account_id, &account.currency)?;
            let size = hold.description.len() + label_bytes(&hold.labels);
            Ok(((hold, row.try_get("", "now_us")?), size))
        })
        .await?;
        let last = holds.last().filter(|_| is_cut || holds.len() as u64 >= limit);
        let last = last.map(|(hold, _)| hold.hold_id.clone());
        let (mut rows, expired_us) = as_of(holds.into_iter());
        let is_in = |hold: &Hold| filter.state.is_none_or(|state| hold.state == state);
        if !rows.iter().all(is_in) {
            rows.retain(is_in);
            next = last.or(next);
        }
        let value = Examined { rows, next };
        Ok(Expiring { value, expired_us, many_unrecorded: Vec::new() })
    }
}

impl WriteTransaction {
    /// The time, the holds with these ids, and the expired holds on the accounts with these keys, which
    /// must be locked: of each the first `expired_max`.
    pub async fn holds(
        &self,
        hold_ids: &BTreeSet<HoldId>,
        account_keys: &BTreeSet<i64>,
        expired_max: usize,
    ) -> Result<(i64, Vec<Hold>), StorageError> {
        by_key(&self.transaction, hold_ids, account_keys, expired_max).await
    }
}

/// Holds as they are at the times at which they were read, and when the last of them expired whose rows do
/// not say so.
fn as_of(holds: impl Iterator<Item = (Hold, i64)>) -> (Vec<Hold>, Option<i64>) {
    let mut expired_us = None;
    let mut read = Vec::new();
    for (hold, now_us) in holds {
        let stored = hold.state;
        let hold = hold.at(now_us);
        if hold.state != stored {
            expired_us = Ord::max(expired_us, hold.expire_time_us);
        }
        read.push(hold);
    }
    (read, expired_us)
}

/// The time as of which holds are read.
fn time(kind: DatabaseKind, expire_until_us: i64) -> SimpleExpr {
    let (least, clock) = (kind.least(), kind.statement_clock());
    let sql = format!("{least}({clock}, {})", kind.placeholder());
    Expr::cust_with_values(sql, [expire_until_us])
}

/// The condition that a hold may be in this state at this time: an open hold whose time has passed is
/// expired. It is read as an open one, too: a change that extends it may be on its way.
fn is_in(state: HoldState, time: &SimpleExpr) -> Cond {
    let has_passed = || Column::ExpireTimeUs.into_expr().lte(time.clone());
    let is_stored = Column::State.eq(state.name());
    match state {
        HoldState::Expired => Cond::any()
            .add(is_stored)
            .add(Cond::all().add(Column::State.eq(HoldState::Open.name())).add(has_passed())),
        HoldState::Open | HoldState::Captured | HoldState::Released => Cond::all().add(is_stored),
    }
}

// A second is added to the time: the caller decides by the time that this statement returns, which
// is a little later than the one that the statement compares with.
pub static BY_KEY: Sql = Sql::new(|kind| {
    let columns = format!("{}, {OF_ACCOUNT}", HOLDS.column_list("h."));
    let (clock, statement_clock) = (kind.clock(), kind.statement_clock());
    let expired = format!("h.open_until_us <= {statement_clock} + 1000000");
    let account = "CROSS JOIN LATERAL (SELECT * FROM accounts a \
        WHERE a.account_key = h.account_key LIMIT 1) a";
    // LATERAL with a LIMIT: see `write::transaction`. In the order of the key, which only its index
    // gives: by `=` alone another index that has the key behind other columns costs the same while
    // the table has one row.
    let (named, held) = match kind {
        DatabaseKind::Sqlite => (
            "json_each(?) name JOIN holds h ON h.hold_id = name.value \
             JOIN accounts a ON a.account_key = h.account_key"
                .to_owned(),
            format!(
                "json_each(?) held JOIN holds h ON h.hold_id IN (SELECT h.hold_id FROM holds h \
                     WHERE h.account_key = held.value AND {expired} \
                     ORDER BY h.open_until_us LIMIT ?) \
                 JOIN accounts a ON a.account_key = h.account_key"
            ),
        ),
        DatabaseKind::Postgres => (
            format!(
                "UNNEST($1::text[]) AS name(hold_id) CROSS JOIN LATERAL (SELECT * FROM holds h \
                     WHERE h.hold_id >= name.hold_id COLLATE \"C\" \
                         AND h.hold_id <= name.hold_id COLLATE \"C\" \
                     ORDER BY h.hold_id LIMIT 1) h {account}"
            ),
            format!(
                "UNNEST($2::bigint[]) AS held(account_key) CROSS JOIN LATERAL (SELECT * FROM holds h \
                     WHERE h.account_key = held.account_key AND {expired} \
                     ORDER BY h.open_until_us LIMIT $3) h {account}"
            ),
        ),
    };
    format!(
        "SELECT clock.now_us, h.* FROM (SELECT {clock} AS now_us) clock LEFT JOIN (\
             SELECT {columns} FROM {named} \
             UNION ALL \
             SELECT {columns} FROM {held} \
         ) h ON true"
    )
});

/// The database's clock, the holds with these ids, and the holds on the accounts with these keys that
/// have expired and whose rows do not say so, of each account the first `expired_max`. All are as their
/// rows are: see [`Hold::at`].
pub async fn by_key(
    connection: &impl ConnectionTrait,
    hold_ids: &BTreeSet<HoldId>,
    account_keys: &BTreeSet<i64>,
    expired_max: usize,
) -> Result<(i64, Vec<Hold>), StorageError> {
    let kind = DatabaseKind::of(connection);
    let values = [
        kind.texts(hold_ids.iter().map(|id| id.as_str().to_owned())),
        kind.integers(account_keys.iter().copied()),
        (expired_max as i64).into(),
    ];
    let statement = BY_KEY.statement(kind, values);
    let rows = connection.query_all_raw(statement).await?;
    // An expired hold that is also named comes twice.
    let mut holds = HashMap::new();
    for row in &rows {
        if let Some(hold) = hold_of(row)? {
            holds.insert(hold.hold_id.clone(), hold);
        }
    }
    Ok((now_us(&rows)?, holds.into_values().collect()))
}

/// The hold of a row; None for the row of the clock alone.
fn hold_of(row: &QueryResult) -> Result<Option<Hold>, StorageError> {
    let hold_id: Option<String> = row.try_get("", "hold_id")?;
    if hold_id.is_none() {
        return Ok(None);
    }
    let (account_id, currency) = account_of(row)?;
    Ok(Some(Model::from_query_result(row, "")?.into_hold(&account_id, &currency)?))
}
