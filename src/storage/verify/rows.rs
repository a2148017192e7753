//! Rows read for verification, with nothing taken for granted.
//!
//! A page of entries or requests comes as one text: fetching a million rows one by one from the driver
//! costs many times what verifying them does.

use rust_decimal::Decimal;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Value};
use uuid::Uuid;

use crate::{
    domain::{
        account::{Account, AccountState},
        hex::from_hex,
        ids::AccountId,
        money::{Amount, Currency, SCALE_MAX},
        transaction::Entry,
        verification::{Fault, FaultKind, StoredAccount},
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::accounts::Model,
        error::undecodable_column,
        queries::held::{HeldSum, held_sum},
        tables::ACCOUNTS,
    },
};

/// The columns of an entry, as [`EntryLine`] reads them. [`EFFECTIVE`] and the effective time are one
/// column, which is empty if the time is null.
pub fn entry_columns(kind: DatabaseKind) -> String {
    let (id, hash) = (kind.uuid_text("transaction_id"), kind.bytes_text("hash"));
    format!(
        "account_key, sequence, {id}, amount, balance_after, create_time_us, {hash}, \
         COALESCE('{EFFECTIVE}' || CAST(effective_time_us AS text), '')"
    )
}

/// The begin of an effective time that is not null: SQLite may have stored an empty text.
const EFFECTIVE: char = '=';

/// Between two columns of a row: the unit separator of ASCII.
const COLUMN_SEPARATOR: char = '\u{1f}';
/// Between two rows: the record separator of ASCII.
const ROW_SEPARATOR: char = '\u{1e}';

/// A page of rows in one text.
pub struct Packed {
    /// The number of rows.
    pub count: usize,
    /// An error if a value is not UTF-8.
    text: Result<Option<String>, DbErr>,
}

impl Packed {
    /// The rows. They are more than `count` if a value has a separator in it.
    pub fn rows(&self) -> Result<impl DoubleEndedIterator<Item = &str>, StorageError> {
        let text = self.text.as_ref().map_err(|error| StorageError::from(error.clone()))?;
        Ok(text.iter().flat_map(|text| text.split(ROW_SEPARATOR)))
    }
}

/// The columns of a row.
pub fn columns(row: &str) -> std::str::Split<'_, char> {
    row.split(COLUMN_SEPARATOR)
}

/// Reads these columns of the rows of `FROM ... ORDER BY ...`. None of them is null.
pub async fn read_packed(
    connection: &impl ConnectionTrait,
    columns: &str,
    from: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Packed, StorageError> {
    let sql = format!(
        "SELECT count(*), string_agg(line, '{ROW_SEPARATOR}') \
         FROM (SELECT concat_ws('{COLUMN_SEPARATOR}', {columns}) AS line {from}) AS page"
    );
    let statement = DatabaseKind::of(connection).statement(sql, values);
    let Some(row) = connection.query_one_raw(statement).await? else {
        return Err(StorageError::Unavailable("a count has no row".to_owned()));
    };
    let count: i64 = row.try_get_by_index(0)?;
    let count = usize::try_from(count).unwrap_or_default();
    Ok(Packed { count, text: row.try_get_by_index(1) })
}

/// A row of entries.
pub struct EntryLine<'a> {
    /// The key of the account; 0, which no account has, if it cannot be read.
    pub account_key: i64,
    /// None if it cannot be read.
    pub sequence: Option<i64>,
    rest: std::str::Split<'a, char>,
}

impl<'a> EntryLine<'a> {
    /// Takes a row apart.
    pub fn new(row: &'a str) -> Self {
        let mut rest = columns(row);
        let mut number = || rest.next().and_then(|text| text.parse().ok());
        let (account_key, sequence) = (number().unwrap_or_default(), number());
        Self { account_key, sequence, rest }
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
            hash: from_hex(next("hash")?).and_then(|it| it.try_into().ok()).ok_or("hash")?,
            effective_time_us: match next("effective_time_us")? {
                "" => None,
                text => {
                    let time = text.strip_prefix(EFFECTIVE).and_then(|time| time.parse().ok());
                    Some(time.ok_or("effective_time_us")?)
                }
            },
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

/// What stands for the id of an account that does not exist.
pub fn unknown_account(account_key: i64) -> AccountId {
    AccountId::from_stored(&format!("with key {account_key}"))
}

/// The columns that [`stored_account`] reads, of `accounts a`: an account's row together with the sum of
/// its open holds, whether they have expired or not, in one statement and so in one snapshot.
pub fn account_columns(kind: DatabaseKind) -> String {
    format!(
        "{}, {} AS open_holds",
        ACCOUNTS.column_list("a."),
        held_sum(kind, "a", "h.state = 'open'")
    )
}

/// The account of a row, or the fault that it cannot be read.
pub fn stored_account(row: &QueryResult) -> Result<StoredAccount, Fault> {
    let read = || {
        // A response has no text of the driver.
        let unreadable = |error: DbErr| {
            let column = undecodable_column(&error).unwrap_or("of unknown name");
            StorageError::Corrupt(format!("column {column}"))
        };
        let model = Model::from_query_result(row, "").map_err(unreadable)?;
        let open_holds: Option<String> = row.try_get("", "open_holds").map_err(unreadable)?;
        let account = Account::try_from(model)?;
        let available = account.available();
        let units = |text: String| Some(HeldSum::parse(&text, &account.currency)?.units);
        let open_holds = open_holds.map_or(Some(0), units);
        Ok(StoredAccount {
            open_holds: open_holds
                .ok_or_else(|| StorageError::Corrupt("column amount of an open hold".to_owned()))?,
            account_id: account.account_id,
            account_key: account.account_key,
            currency: account.currency,
            balance: account.balance,
            held: account.held,
            sequence: account.sequence,
            last_hash: account.last_hash,
            available: (!account.unlimited_overdraft).then_some(available),
            below_limit: account.below_limit,
            is_closed: account.state == AccountState::Closed,
            create_time_us: account.create_time_us,
            update_time_us: account.update_time_us,
        })
    };
    read().map_err(|error: StorageError| Fault {
        account_id: AccountId::from_stored(
            &row.try_get::<String>("", "account_id").unwrap_or_default(),
        ),
        sequence: 0,
        kind: FaultKind::Unreadable,
        description: error.to_string(),
    })
}
