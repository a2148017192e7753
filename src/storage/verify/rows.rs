//! Rows read for verification, with nothing taken for granted.
//!
//! A page of entries or requests comes as one text, with a line for each row: fetching a million
//! rows one by one from the driver costs many times what verifying them does.

use rust_decimal::Decimal;
use sea_orm::{ColIdx, ConnectionTrait, QueryResult, TryGetable, Value};
use uuid::Uuid;

use crate::{
    domain::{
        ids::AccountId,
        money::{Amount, Currency, SCALE_MAX},
        transaction::Entry,
        verification::{Fault, FaultKind, StoredAccount},
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::{currencies::currency, number::Number},
    },
};

/// The columns of an entry, as [`EntryLine`] reads them.
pub fn entry_columns(kind: DatabaseKind) -> Vec<String> {
    let (id, hash) = (kind.uuid_text("transaction_id"), kind.bytes_text("hash"));
    ["account_id", "sequence", &id, "amount", "balance_after", "create_time_us", &hash]
        .map(str::to_owned)
        .to_vec()
}

/// A statement that returns the number of rows of `FROM ... ORDER BY ...`, and these columns of
/// them in one text. This service writes no value with a line feed in these columns; one would be
/// found as a fault.
pub fn packed(kind: DatabaseKind, columns: &[String], from: &str) -> String {
    match kind {
        DatabaseKind::Sqlite => format!(
            "SELECT count(*), group_concat(line, char(10)) FROM (SELECT {} AS line {from})",
            columns.join(" || ' ' || ")
        ),
        DatabaseKind::Postgres => format!(
            "SELECT count(*), string_agg(line, chr(10)) \
             FROM (SELECT concat_ws(' ', {}) AS line {from}) AS page",
            columns.join(", ")
        ),
    }
}

/// A page of rows in one text.
pub struct Packed {
    /// The number of rows.
    pub count: usize,
    /// A line for each row.
    pub text: String,
}

/// Runs a statement of [`packed`].
pub async fn read_packed(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Packed, StorageError> {
    let statement = DatabaseKind::of(connection).statement(sql, values);
    let Some(row) = connection.query_one_raw(statement).await? else {
        return Err(StorageError::Unavailable("no row of a count".to_owned()));
    };
    let count: i64 = row.try_get_by_index(0)?;
    let text: Option<String> = row.try_get_by_index(1)?;
    Ok(Packed { count: usize::try_from(count).unwrap_or_default(), text: text.unwrap_or_default() })
}

/// A line of entries.
pub struct EntryLine<'a> {
    /// The id as stored.
    pub account_id: &'a str,
    /// None if it cannot be read.
    pub sequence: Option<i64>,
    rest: std::str::Split<'a, char>,
}

impl<'a> EntryLine<'a> {
    /// Takes a line apart.
    pub fn new(line: &'a str) -> Self {
        let mut rest = line.split(' ');
        let account_id = rest.next().unwrap_or_default();
        let sequence = rest.next().and_then(|text| text.parse().ok());
        Self { account_id, sequence, rest }
    }

    /// The entry of this account, or the name of the column that cannot be read.
    pub fn entry(
        mut self,
        account_id: &AccountId,
        currency: &Currency,
    ) -> Result<Entry, &'static str> {
        let mut next = |column| self.rest.next().ok_or(column);
        Ok(Entry {
            account_id: account_id.clone(),
            sequence: self.sequence.ok_or("sequence")?,
            transaction_id: Uuid::try_parse(next("transaction_id")?)
                .map_err(|_| "transaction_id")?,
            currency: currency.clone(),
            amount: amount_of(next("amount")?, currency).ok_or("amount")?,
            balance_after: amount_of(next("balance_after")?, currency).ok_or("balance_after")?,
            create_time_us: next("create_time_us")?.parse().map_err(|_| "create_time_us")?,
            hash: hash_of(next("hash")?).ok_or("hash")?,
        })
    }
}

/// Parses an amount, which may have fewer or more trailing zeros than the currency has decimals.
pub fn amount_of(text: &str, currency: &Currency) -> Option<Amount> {
    if currency.scale() > SCALE_MAX {
        return None;
    }
    let plain = currency.parse(text).ok();
    plain.or_else(|| currency.amount(Decimal::from_str_exact(text).ok()?))
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// The columns that [`stored_account`] reads, of `accounts a`: an account's row together with what its
/// open holds sum to, whether they have expired or not, in one statement and so in one snapshot.
/// PostgreSQL adds them up exactly; SQLite would with floats, and gives a list instead.
pub fn account_columns(kind: DatabaseKind) -> String {
    let open_holds = match kind {
        DatabaseKind::Sqlite => "group_concat(h.amount, ' ')",
        DatabaseKind::Postgres => "CAST(sum(h.amount) AS text)",
    };
    format!(
        "a.account_id, a.currency_code, a.currency_scale, a.balance, a.held, a.sequence, \
         a.last_hash, (SELECT {open_holds} FROM holds h \
            WHERE h.account_id = a.account_id AND h.state = 'open')"
    )
}

/// The column's value, or the column's name.
pub fn get<T: TryGetable>(
    row: &QueryResult,
    index: impl ColIdx,
    column: &'static str,
) -> Result<T, &'static str> {
    T::try_get_by(row, index).map_err(|_| column)
}

/// The account of a row, or the fault that one of its columns cannot be read.
pub fn stored_account(row: &QueryResult) -> Result<StoredAccount, Fault> {
    let account_id = AccountId::from_stored(&get::<String>(row, 0, "").unwrap_or_default());
    let read = || {
        let (code, scale): (String, i16) =
            (get(row, 1, "currency_code")?, get(row, 2, "currency_scale")?);
        let currency = currency(&code, scale).map_err(|_| "currency_scale")?;
        let open_holds: Option<String> = get(row, 7, "held (of an open hold)")?;
        let last_hash: Vec<u8> = get(row, 6, "last_hash")?;
        Ok(StoredAccount {
            account_id: account_id.clone(),
            balance: amount(row, 3, "balance", &currency)?,
            held: amount(row, 4, "held", &currency)?,
            sequence: get(row, 5, "sequence")?,
            last_hash: last_hash.try_into().map_err(|_| "last_hash")?,
            open_holds: sum(open_holds.as_deref().unwrap_or_default(), currency.scale())
                .ok_or("held (of an open hold)")?,
            currency,
        })
    };
    read().map_err(|column: &str| Fault {
        account_id: account_id.clone(),
        sequence: 0,
        kind: FaultKind::Unreadable,
        description: format!("its column {column} cannot be read"),
    })
}

fn amount(
    row: &QueryResult,
    index: usize,
    column: &'static str,
    currency: &Currency,
) -> Result<Amount, &'static str> {
    let Number(number) = get(row, index, column)?;
    currency.amount(number).ok_or(column)
}

/// The sum of amounts of this scale, in the smallest unit; None if one cannot be parsed or the sum
/// is beyond 2^127.
fn sum(amounts: &str, scale: u32) -> Option<i128> {
    amounts.split_whitespace().try_fold(0_i128, |sum, text| sum.checked_add(units(text, scale)?))
}

/// A number of any size with this scale, in the smallest unit.
fn units(text: &str, scale: u32) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let zeros = (scale as usize).checked_sub(fraction.len())?;
    let is_digit = |byte: u8| byte.is_ascii_digit();
    if whole.is_empty() || !whole.bytes().all(is_digit) || !fraction.bytes().all(is_digit) {
        return None;
    }
    let units: i128 = format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().ok()?;
    Some(sign * units)
}

#[cfg(test)]
mod tests {
    use super::{sum, units};

    #[test]
    fn sums_are_exact_beyond_what_one_amount_can_be() {
        let largest = format!("{}.99", "9".repeat(26));
        assert_eq!(units(&largest, 2), Some(10_i128.pow(28) - 1));
        assert_eq!(sum(&[largest.as_str(); 100].join(" "), 2), Some(100 * (10_i128.pow(28) - 1)));
        assert_eq!(sum("", 2), Some(0));
        assert_eq!((sum("1.50 -0.5 2", 2), sum("7.000", 0)), (Some(300), Some(7)));
        for text in ["NaN", "", "1.001", "+1", "-", "1e5", ".5", "- 1"] {
            assert_eq!(units(text, 2), None, "{text:?}");
        }
    }
}
