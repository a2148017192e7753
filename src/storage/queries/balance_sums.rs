//! Sums of balances.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sea_orm::{FromQueryResult, StreamTrait, Value};

use crate::{
    domain::{
        balance_sum::BalanceSum,
        query::{AccountFilter, AccountRange},
    },
    storage::{
        StorageError, Store,
        dialect::DatabaseKind,
        entity::currencies::currency,
        queries::{accounts::expired_holds, held::HeldSum, page::Expiring},
    },
};

/// The most accounts that one sum examines on PostgreSQL. A million takes 1.3 s, and 3.3 s if all of
/// them hold money, of the 6 s that a statement of a reader may take.
const ADDED_BY_POSTGRES_MAX: u64 = 1_000_000;
/// The same on SQLite, which returns every account to be added here.
const ADDED_HERE_MAX: u64 = 250_000;
/// A sum at a past time searches the entries of each account that has changed since: it examines one
/// account where another sum examines so many. On PostgreSQL 100,000 accounts with thousands of entries
/// each took 10 s.
const SEARCH_COST_OF_POSTGRES: u64 = 40;
/// The same on SQLite.
const SEARCH_COST_HERE: u64 = 10;
/// SQLite compares each wanted label with each label of an account, which has up to 32: with labels a
/// sum examines one account where another one examines so many for each of them.
const LABEL_COST: u64 = 2;

impl Store {
    /// The most accounts that one such sum may examine.
    pub fn summed_accounts_max(&self, filter: &AccountFilter, time_us: Option<i64>) -> u64 {
        let (max, search_cost) = match self.kind() {
            DatabaseKind::Sqlite => {
                let max = ADDED_HERE_MAX / Ord::max(1, LABEL_COST * filter.labels.len() as u64);
                (max, SEARCH_COST_HERE)
            }
            DatabaseKind::Postgres => (ADDED_BY_POSTGRES_MAX, SEARCH_COST_OF_POSTGRES),
        };
        if time_us.is_some() { max / search_cost } else { max }
    }

    /// The sums of the accounts in these ranges, which are disjoint, in order of their currencies. None
    /// if there are more than `accounts_max` accounts in the ranges. With a time: of the accounts that
    /// were open then, their balances after all entries up to this time, and nothing else.
    pub async fn sum_balances(
        &self,
        filter: &AccountFilter,
        ranges: &[AccountRange],
        time_us: Option<i64>,
        accounts_max: u64,
        expire_until_us: i64,
    ) -> Result<Expiring<Option<Vec<BalanceSum>>>, StorageError> {
        let (sql, values) =
            statement(self.kind(), filter, ranges, time_us, accounts_max + 1, expire_until_us);
        let mut rows = self.readers.stream_raw(self.kind().statement(sql, values)).await?;
        let mut examined = 0;
        let mut expired_us = None;
        let mut sums: BTreeMap<String, BalanceSum> = BTreeMap::new();
        while let Some(row) = rows.try_next().await? {
            let row = Row::from_query_result(&row, "")?;
            examined += row.examined.unsigned_abs();
            if examined > accounts_max {
                return Ok(Expiring { value: None, expired_us: None, many_unrecorded: Vec::new() });
            }
            let Some(sum) = row.into_sum(&mut expired_us)? else { continue };
            let code = sum.currency.code().to_owned();
            let sum = match sums.remove(&code) {
                None => sum,
                Some(before) => before.checked_add(sum).ok_or_else(|| corrupt(&code))?,
            };
            sums.insert(code, sum);
        }
        let value = Some(sums.into_values().collect());
        Ok(Expiring { value, expired_us, many_unrecorded: Vec::new() })
    }
}

/// Some accounts of one currency: on PostgreSQL all, on SQLite one.
#[derive(FromQueryResult)]
struct Row {
    currency_code: String,
    currency_scale: i16,
    /// The number of accounts, whether or not they match the filter.
    examined: i64,
    /// The number of accounts that match. Only these are in the sums.
    accounts: i64,
    balance: Option<String>,
    held: Option<String>,
    overdraft_limit: Option<String>,
    /// See [`expired_holds`].
    expired: Option<String>,
}

impl Row {
    /// None if no account matches. Raises `expired_us` to the time at which the last of the holds
    /// expired.
    fn into_sum(self, expired_us: &mut Option<i64>) -> Result<Option<BalanceSum>, StorageError> {
        if self.accounts == 0 {
            return Ok(None);
        }
        let currency = currency(&self.currency_code, self.currency_scale)?;
        let corrupt = || corrupt(&self.currency_code);
        let units = |text: Option<String>| {
            text.and_then(|text| currency.parse_units(&text)).ok_or_else(corrupt)
        };
        let mut held = units(self.held)?;
        // One for each account.
        for expired in self.expired.iter().flat_map(|it| it.split(' ')) {
            let expired = HeldSum::parse(expired, &currency).ok_or_else(corrupt)?;
            held -= expired.units;
            *expired_us = Ord::max(*expired_us, Some(expired.expire_time_us));
        }
        let (balance, overdraft_limit) = (units(self.balance)?, units(self.overdraft_limit)?);
        let accounts = self.accounts.unsigned_abs();
        Ok(Some(BalanceSum { currency, accounts, balance, held, overdraft_limit }))
    }
}

fn corrupt(currency_code: &str) -> StorageError {
    StorageError::Corrupt(format!("the sum of the balances in {currency_code}"))
}

/// The statement whose rows are [`Row`]s, and which examines at most `limit` accounts. It is one
/// statement, so that all accounts are of one instant. PostgreSQL adds the amounts. SQLite has no
/// decimals: it returns them.
fn statement(
    kind: DatabaseKind,
    filter: &AccountFilter,
    ranges: &[AccountRange],
    time_us: Option<i64>,
    limit: u64,
    expire_until_us: i64,
) -> (String, Vec<Value>) {
    let ranges = ranges.iter().map(|range| (range.start.clone(), range.end.clone()));
    let mut values = kind.pairs(ranges);
    let mut parameter = |value: Value| {
        values.push(value);
        kind.numbered(values.len())
    };
    let mut matches = vec!["true".to_owned()];
    if let Some(currency_code) = &filter.currency_code {
        matches.push(format!("a.currency_code = {}", parameter(currency_code.into())));
    }
    if let Some(state) = filter.state {
        matches.push(format!("a.state = {}", parameter(state.name().into())));
    }
    if !filter.labels.is_empty() {
        let labels = serde_json::json!(filter.labels).to_string();
        matches.push(kind.has_labels("a.labels", &parameter(labels.into())));
    }
    let expired = match time_us {
        None => expired_holds(kind, "a", &parameter(expire_until_us.into())),
        Some(_) => "NULL".to_owned(),
    };
    let balance = match time_us {
        None => "a.balance".to_owned(),
        Some(time_us) => {
            let time_us = parameter(time_us.into());
            matches.push(format!("a.create_time_us <= {time_us}"));
            balance_at(kind, &time_us)
        }
    };
    let matches = matches.join(" AND ");
    let sql = match kind {
        DatabaseKind::Sqlite => format!(
            "SELECT a.currency_code, a.currency_scale, 1 AS examined, {matches} AS accounts, \
                 CASE WHEN {matches} THEN {balance} END AS balance, a.held, a.overdraft_limit, \
                 CASE WHEN CAST(a.held AS REAL) > 0 THEN {expired} END AS expired \
             FROM json_each(?1) r JOIN accounts a \
                 ON a.account_id >= r.value ->> 0 AND a.account_id < r.value ->> 1 \
             LIMIT {limit}"
        ),
        // LATERAL with a LIMIT: each range is read by the key.
        DatabaseKind::Postgres => format!(
            "SELECT a.currency_code, a.currency_scale, count(*) AS examined, \
                 count(*) FILTER (WHERE a.matches) AS accounts, \
                 CAST(sum(a.balance) FILTER (WHERE a.matches) AS text) AS balance, \
                 CAST(sum(a.held) FILTER (WHERE a.matches) AS text) AS held, \
                 CAST(sum(a.overdraft_limit) FILTER (WHERE a.matches) AS text) AS overdraft_limit, \
                 string_agg(a.expired, ' ') FILTER (WHERE a.matches) AS expired \
             FROM (SELECT a.currency_code, a.currency_scale, a.held, a.overdraft_limit, \
                     {matches} AS matches, CASE WHEN {matches} THEN {balance} END AS balance, \
                     CASE WHEN a.held > 0 THEN {expired} END AS expired \
                 FROM UNNEST($1::text[], $2::text[]) AS r(first, behind) CROSS JOIN LATERAL ( \
                     SELECT * FROM accounts a WHERE a.account_id >= r.first COLLATE \"C\" \
                         AND a.account_id < r.behind COLLATE \"C\" \
                     ORDER BY a.account_id LIMIT {limit}) a LIMIT {limit}) a \
             GROUP BY a.currency_code, a.currency_scale"
        ),
    };
    (sql, values)
}

/// The balance of the account `a` after all entries up to this time. If it has changed since, the
/// sequence of the last of these entries is searched as in [`Store::first_at`]: the entry in the middle
/// becomes one end of the range.
fn balance_at(kind: DatabaseKind, time_us: &str) -> String {
    let middle = "(s.low + s.high + 1) / 2";
    let entry = |sequence: &str| {
        format!("FROM entries e WHERE e.account_key = a.account_key AND e.sequence = {sequence}")
    };
    // The key is looked up once a step. SQLite has no LATERAL, and keeps the order of a CROSS JOIN.
    let step = match kind {
        DatabaseKind::Sqlite => format!(
            "s CROSS JOIN entries e \
                 ON e.account_key = a.account_key AND e.sequence = {middle}"
        ),
        DatabaseKind::Postgres => format!(
            "s CROSS JOIN LATERAL (SELECT e.sequence, e.create_time_us {} LIMIT 1) e",
            entry(middle)
        ),
    };
    let last = format!(
        "(WITH RECURSIVE s(low, high) AS (SELECT a.sequence * 0, a.sequence UNION ALL SELECT \
             CASE WHEN e.create_time_us <= {time_us} THEN e.sequence ELSE s.low END, \
             CASE WHEN e.create_time_us <= {time_us} THEN s.high ELSE e.sequence - 1 END \
             FROM {step} WHERE s.low < s.high) \
         SELECT s.low FROM s WHERE s.low = s.high)"
    );
    // On SQLite an amount is a text.
    let zero = match kind {
        DatabaseKind::Sqlite => "'0'",
        DatabaseKind::Postgres => "0",
    };
    format!(
        "CASE WHEN a.update_time_us <= {time_us} THEN a.balance \
             ELSE COALESCE((SELECT e.balance_after {}), {zero}) END",
        entry(&last)
    )
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;
    use tempfile::TempDir;

    use super::*;
    use crate::storage::connect::session::Role;

    #[tokio::test]
    async fn a_sum_examines_no_more_accounts_than_it_may() {
        let directory = TempDir::new().unwrap();
        let store = Store::for_tests(&directory).await;
        let insert = "INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
                overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
                create_time_us, update_time_us, caller) \
            SELECT value, 'USD', 2, '1.50', '0.00', '0.00', false, 'open', 0, 1, x'', '{}', 1, 1, '' \
            FROM json_each('[\"a\", \"b\", \"c\"]')";
        let writer = store.open(Role::Maintenance).await.unwrap();
        writer.execute_unprepared(insert).await.unwrap();
        let filter = AccountFilter { currency_code: Some("EUR".to_owned()), ..Default::default() };
        let ranges = [AccountRange::of_prefix("a"), AccountRange::of_prefix("b")];
        let sum = async |filter: &AccountFilter, ranges: &[AccountRange], max| {
            store.sum_balances(filter, ranges, None, max, i64::MAX).await.unwrap().value
        };
        let all = [AccountRange::of_prefix("")];
        assert_eq!(sum(&filter, &all, 2).await, None, "others are examined, too");
        assert_eq!(sum(&filter, &all, 3).await, Some(Vec::new()));
        let sums = sum(&AccountFilter::default(), &ranges, 2).await.expect("two accounts");
        assert_eq!((sums[0].accounts, sums[0].balance), (2, 300));
    }
}
