//! Rows as they are read to be verified: by the place of a column, believing nothing.

use sea_orm::{ColIdx, DbBackend, QueryResult, TryGetable};

use crate::{
    domain::{
        ids::AccountId,
        money::{Amount, Currency},
        transaction::Entry,
        verification::{Claim, Fault, FaultKind},
    },
    storage::entity::{currencies::currency, number::Number},
};

/// The columns that [`entry`] reads, from its first place on.
pub const ENTRY_COLUMNS: &str =
    "sequence, transaction_id, amount, balance_after, create_time_us, hash";

/// The columns that [`claim`] reads, of `accounts a`: an account's row together with what its
/// open holds sum to, whether they have expired or not, in one statement and so in one snapshot.
/// PostgreSQL adds them up exactly; SQLite would with floats, and gives a list instead.
pub fn claim_columns(backend: DbBackend) -> String {
    let open_holds = match backend {
        DbBackend::Sqlite => "group_concat(h.amount, ' ')",
        _ => "CAST(sum(h.amount) AS text)",
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

/// What an account's row says, or which of its columns cannot be read.
pub fn claim(row: &QueryResult) -> Result<Claim, Fault> {
    let account_id = AccountId::from_stored(&get::<String>(row, 0, "").unwrap_or_default());
    let read = || {
        let (code, scale): (String, i16) =
            (get(row, 1, "currency_code")?, get(row, 2, "currency_scale")?);
        let currency = currency(&code, scale).map_err(|_| "currency_scale")?;
        let open_holds: Option<String> = get(row, 7, "held (of an open hold)")?;
        let last_hash: Vec<u8> = get(row, 6, "last_hash")?;
        Ok(Claim {
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

/// An entry of this account, from this place on, or which of its columns cannot be read.
pub fn entry(
    row: &QueryResult,
    from: usize,
    account_id: &AccountId,
    currency: &Currency,
) -> Result<Entry, &'static str> {
    let hash: Vec<u8> = get(row, from + 5, "hash")?;
    Ok(Entry {
        account_id: account_id.clone(),
        sequence: get(row, from, "sequence")?,
        transaction_id: get(row, from + 1, "transaction_id")?,
        currency: currency.clone(),
        amount: amount(row, from + 2, "amount", currency)?,
        balance_after: amount(row, from + 3, "balance_after", currency)?,
        create_time_us: get(row, from + 4, "create_time_us")?,
        hash: hash.try_into().map_err(|_| "hash")?,
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

/// The sum of amounts of this scale, in the smallest unit; None if one is none, or it is beyond
/// 2^127.
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
