//! Sums of holds, added up in the database: an account may have very many.

use crate::{domain::money::Currency, storage::dialect::DatabaseKind};

/// SQLite has no decimals. It adds the billions of smallest units and the rest of them apart, as integers of
/// 64 bits, which have room for nine billion holds.
const BILLION: i128 = 1_000_000_000;
/// The most characters of an amount that is an integer on SQLite, of 64 bits.
const INTEGER_LENGTH_MAX: usize = 18;

/// Some holds of one account.
#[derive(Debug, PartialEq, Eq)]
pub struct HeldSum {
    /// The number of holds, above zero.
    pub holds: i64,
    /// What they hold in all, without what was captured of them, in the currency's smallest unit.
    pub units: i128,
    /// The latest of their expire times, in microseconds since the Unix epoch; 0 if none expires.
    pub expire_time_us: i64,
}

/// The holds `h` of an account that meet this condition, as an expression that [`HeldSum::parse`] reads.
/// Null if there are none.
///
/// Its text has their number, their latest expire time, two integers, and amounts, with `@` between them:
/// `2@1764150000000000@0@0@1.50`. The first integer counts billions of the smallest unit, the second one
/// smallest units. PostgreSQL writes the sum as an amount. SQLite writes it as integers, but for the holds
/// whose amounts are too long or not written with the currency's decimals.
pub fn held_sum(kind: DatabaseKind, account: &str, condition: &str) -> String {
    let sum = match kind {
        DatabaseKind::Postgres => {
            "'0@0@' || sum(h.amount - COALESCE(h.captured_amount, 0))".to_owned()
        }
        DatabaseKind::Sqlite => {
            let scale = format!("{account}.currency_scale");
            // SQLite's length of a text ends at a NUL. An amount without decimals has no point.
            let is_integer = |column: &str| {
                let length = format!("length(CAST({column} AS BLOB))");
                format!(
                    "{length} <= {INTEGER_LENGTH_MAX} AND {column} GLOB '[0-9]*' \
                     AND {column} NOT GLOB '*[^0-9.]*' AND {column} NOT GLOB '*.*.*' \
                     AND {length} - instr({column} || '.', '.') = {scale} - ({scale} = 0)"
                )
            };
            let is_integer = format!(
                "{} AND (h.captured_amount IS NULL OR {})",
                is_integer("h.amount"),
                is_integer("h.captured_amount")
            );
            let integer = |column: &str| format!("CAST(replace({column}, '.', '') AS INTEGER)");
            let units = format!(
                "CASE WHEN {is_integer} THEN {} - {} ELSE 0 END",
                integer("h.amount"),
                integer("COALESCE(h.captured_amount, '0')")
            );
            format!(
                "sum({units} / {BILLION}) || '@' || sum({units} % {BILLION}) || COALESCE('@' || \
                 string_agg(CASE WHEN {is_integer} THEN NULL \
                     WHEN instr(h.amount || COALESCE(h.captured_amount, ''), '@') > 0 THEN '?' \
                     ELSE h.amount || COALESCE('@-' || h.captured_amount, '') END, '@'), '')"
            )
        }
    };
    format!(
        "(SELECT CASE WHEN count(*) > 0 THEN \
              count(*) || '@' || COALESCE(max(h.expire_time_us), 0) || '@' || {sum} END \
          FROM holds h WHERE h.account_key = {account}.account_key AND {condition})"
    )
}

impl HeldSum {
    /// Reads a value of [`held_sum`]. None if it is none, or the sum is not one of amounts of this currency.
    pub fn parse(text: &str, currency: &Currency) -> Option<Self> {
        let mut parts = text.split('@');
        let mut integer = || parts.next()?.parse::<i64>().ok();
        let (holds, expire_time_us) = (integer()?, integer()?);
        let (billions, rest) = (i128::from(integer()?), i128::from(integer()?));
        let add = |units: i128, amount| units.checked_add(currency.parse_units(amount)?);
        let units = parts.try_fold(billions * BILLION + rest, add)?;
        Some(Self { holds, units, expire_time_us })
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Value};
    use tempfile::TempDir;

    use super::*;
    use crate::{
        domain::money::Currencies,
        storage::{Store, connect::session::Role},
    };

    /// The sum of such holds on SQLite.
    async fn sum_of(code: &str, holds: &[(&str, Option<&str>)]) -> Option<HeldSum> {
        let directory = TempDir::new().unwrap();
        let store = Store::for_tests(&directory).await;
        let connection = store.open(Role::Maintenance).await.unwrap();
        let currency = Currencies::default().get(code).unwrap();
        let rows = serde_json::json!(holds).to_string();
        let sql = format!(
            "WITH holds AS (SELECT 1 AS account_key, value ->> 0 AS amount, \
                 value ->> 1 AS captured_amount, 10 + key AS expire_time_us FROM json_each(?)) \
             SELECT {} AS sum FROM (SELECT 1 AS account_key, ? AS currency_scale) a",
            held_sum(DatabaseKind::Sqlite, "a", "true")
        );
        let values: [Value; 2] = [rows.into(), i64::from(currency.scale()).into()];
        let statement = DatabaseKind::Sqlite.statement(sql, values);
        let row = connection.query_one_raw(statement).await.unwrap().unwrap();
        HeldSum::parse(&row.try_get::<Option<String>>("", "sum").unwrap()?, &currency)
    }

    fn sum(holds: i64, units: i128) -> Option<HeldSum> {
        Some(HeldSum { holds, units, expire_time_us: 9 + holds })
    }

    #[tokio::test]
    async fn sums_of_sqlite_are_exact() {
        assert_eq!(sum_of("USD", &[]).await, None);
        let some = [("1.50", None), ("2.00", Some("0.75")), ("0.01", None)];
        assert_eq!(sum_of("USD", &some).await, sum(3, 276));
        assert_eq!(sum_of("JPY", &[("7", None), ("9", Some("8"))]).await, sum(2, 8));
        // The longest integers, the shortest amounts that are none, and the largest one.
        let (integer, amount) = ("999999999999999.99", "1000000000000000.00");
        let largest = format!("{}.99", "9".repeat(26));
        let holds =
            [(integer, None), (integer, Some("0.01")), (amount, None), (amount, Some("1.00"))];
        let units = 2 * (10_i128.pow(17) - 1) - 1 + 2 * 10_i128.pow(17) - 100;
        assert_eq!(sum_of("USD", &holds).await, sum(4, units));
        let units = 100 * (10_i128.pow(28) - 1);
        assert_eq!(sum_of("USD", &[(largest.as_str(), None); 100]).await, sum(100, units));
    }

    #[tokio::test]
    async fn amounts_of_other_hands_are_read_or_found() {
        // With other decimals than the currency's.
        let holds = [("7", None), ("1.5", None), ("1.500", None), ("2.00", Some("1"))];
        assert_eq!(sum_of("USD", &holds).await, sum(4, 1100));
        assert_eq!(sum_of("JPY", &[("7.000", None)]).await, sum(1, 7));
        let below = [("-10.00", None), ("19.00", None), ("1.00", Some("0.50"))];
        assert_eq!(sum_of("USD", &below).await, sum(3, 950), "another check finds it");
        for amount in ["NaN", "1.001", "-", "1e5", "x.yz", "", "1..5", "12.3.", "1.50\0", "1@2"] {
            assert_eq!(sum_of("USD", &[(amount, None)]).await, None, "{amount:?}");
            assert_eq!(sum_of("USD", &[("1.00", Some(amount))]).await, None, "{amount:?}");
        }
    }
}
