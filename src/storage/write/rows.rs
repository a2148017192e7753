//! The rows of a write: columns and values of each kind, the same for both databases.

use std::sync::LazyLock;

use sea_orm::Value;

use crate::{
    domain::account::{Account, AccountChange, Labels},
    storage::{
        tables::{
            ACCOUNT_CHANGES, ACCOUNTS, COMMITS, Column, ENTRIES, HOLDS, NULL, REQUESTS, Table,
        },
        write::{
            changes::{
                HoldOfAccount, NewCommit, NewEntry, NewRequest, OpenedAccount, attributes_json,
                details_json, hold_id, labels_json, opening_json, placed_json, rejection_json,
                reverses,
            },
            statements::{Parameters, sqlite_insert, sqlite_update},
        },
    },
};

/// The value of a column.
type ValueOf<R> = fn(&R) -> Value;
/// A column by its name, and the value that it gets. Their order means nothing, except that the
/// keys of an update come first.
type NamedValue<R> = (&'static str, ValueOf<R>);

/// The columns that are written of a kind of row, each with its value.
pub struct Rows<R: 'static> {
    table: &'static Table,
    /// How many of the first columns name the row of an update; 0 for new rows.
    key_count: usize,
    /// What a missing row has in common with another one, for the error.
    pub what: &'static str,
    pub cells: Vec<(&'static Column, ValueOf<R>)>,
    /// The statement for SQLite, up to its rows and from there on.
    pub sqlite: [String; 2],
}

#[expect(clippy::expect_used, reason = "the lists are constant, and a test builds all of them")]
impl<R> Rows<R> {
    /// New rows, with a value for every column that the database does not make.
    fn insert(table: &'static Table, what: &'static str, values: &[&[NamedValue<R>]]) -> Self {
        let values = values.concat();
        let cell = |column: &'static Column| {
            let value = values.iter().find(|(name, _)| *name == column.name);
            (column, value.expect("every column has a value").1)
        };
        let cells: Vec<_> = table.inserted().map(cell).collect();
        assert_eq!(values.len(), cells.len(), "every value has a column");
        let sqlite = [sqlite_insert(table, &columns(&cells)), table.returning()];
        Self { table, key_count: 0, what, cells, sqlite }
    }

    /// Rows that are there. The first values, so many, are those of the row's key.
    fn update(
        table: &'static Table,
        what: &'static str,
        key_count: usize,
        values: &[&[NamedValue<R>]],
    ) -> Self {
        let cell = |(name, value): NamedValue<R>| {
            let column = table.columns.iter().find(|column| column.name == name);
            (column.expect("every value has a column"), value)
        };
        let cells: Vec<_> = values.concat().into_iter().map(cell).collect();
        let sqlite = sqlite_update(table, &columns(&cells), key_count);
        Self { table, key_count, what, cells, sqlite }
    }

    /// The statement for PostgreSQL, or a part of one, with the next parameters.
    pub fn postgres(&self, parameters: &mut Parameters) -> String {
        match self.key_count {
            0 => parameters.insert(self.table, &columns(&self.cells)),
            key_count => parameters.update(self.table, &columns(&self.cells), key_count),
        }
    }
}

fn columns<R>(cells: &[(&'static Column, ValueOf<R>)]) -> Vec<&'static Column> {
    cells.iter().map(|(column, _)| *column).collect()
}

/// What an entry changes of an account.
fn balance<R: AsRef<Account>>() -> [NamedValue<R>; 7] {
    [
        ("account_id", |it| it.as_ref().account_id.as_str().into()),
        ("balance", |it| it.as_ref().balance.decimal().into()),
        ("held", |it| it.as_ref().held.decimal().into()),
        ("sequence", |it| it.as_ref().sequence.into()),
        ("version", |it| it.as_ref().version.into()),
        ("last_hash", |it| it.as_ref().last_hash.to_vec().into()),
        ("update_time_us", |it| it.as_ref().update_time_us.into()),
    ]
}

/// What only a change of the account itself changes, or one that takes it below its limit or above.
fn attributes<R: AsRef<Account>>() -> [NamedValue<R>; 5] {
    [
        ("state", |it| it.as_ref().state.name().into()),
        ("overdraft_limit", |it| it.as_ref().overdraft_limit.decimal().into()),
        ("unlimited_overdraft", |it| it.as_ref().unlimited_overdraft.into()),
        ("below_limit", |it| it.as_ref().below_limit.into()),
        ("labels", |it| labels_json(&it.as_ref().labels).into()),
    ]
}

/// What never changes of an account.
const OPENING: &[NamedValue<OpenedAccount>] = &[
    ("currency_code", |it| it.account.currency.code().into()),
    // At most 27.
    ("currency_scale", |it| (it.account.currency.scale() as i16).into()),
    ("create_time_us", |it| it.account.create_time_us.into()),
    ("caller", |it| it.account.created_by.as_str().into()),
    ("opening_attributes", |it| opening_json(&it.opening).into()),
];

pub static NEW_ACCOUNTS: LazyLock<Rows<OpenedAccount>> =
    LazyLock::new(|| Rows::insert(&ACCOUNTS, "account id", &[&balance(), &attributes(), OPENING]));

pub static BALANCE_UPDATES: LazyLock<Rows<Account>> =
    LazyLock::new(|| Rows::update(&ACCOUNTS, "account", 1, &[&balance()]));

pub static ACCOUNT_UPDATES: LazyLock<Rows<Account>> =
    LazyLock::new(|| Rows::update(&ACCOUNTS, "account", 1, &[&balance(), &attributes()]));

// What a rejected request would have written down is of no use, and would be kept for good.
const REQUEST: &[NamedValue<NewRequest>] = &[
    ("caller", |it| it.new.request.key.caller.as_str().into()),
    ("request_id", |it| it.new.request.key.request_id.as_str().into()),
    ("fingerprint", |it| it.new.record.fingerprint.to_vec().into()),
    ("transaction_id", |it| it.new.record.transaction_id.into()),
    ("kind", |it| it.new.request.action.name().into()),
    ("rejection", |it| nullable(rejection_json(&it.new))),
    ("description", |it| match it.is_applied() {
        true => description(&it.new.request.description),
        false => NULL,
    }),
    ("labels", |it| match it.is_applied() {
        true => labels(&it.new.request.labels),
        false => NULL,
    }),
    ("entry_keys", |it| it.entry_keys.as_str().into()),
    ("create_time_us", |it| it.new.create_time_us.into()),
    ("hold_id", |it| nullable(hold_id(&it.new))),
    ("reverses_transaction_id", |it| nullable(reverses(&it.new))),
    ("details", |it| nullable(details_json(&it.new))),
];

pub static NEW_REQUESTS: LazyLock<Rows<NewRequest>> =
    LazyLock::new(|| Rows::insert(&REQUESTS, "request id", &[REQUEST]));

const ENTRY: &[NamedValue<NewEntry>] = &[
    ("account_key", |it| it.account_key.into()),
    ("sequence", |it| it.entry.sequence.into()),
    ("transaction_id", |it| it.entry.transaction_id.into()),
    ("amount", |it| it.entry.amount.decimal().into()),
    ("balance_after", |it| it.entry.balance_after.decimal().into()),
    ("create_time_us", |it| it.entry.create_time_us.into()),
    ("hash", |it| it.entry.hash.to_vec().into()),
    ("effective_time_us", |it| nullable(it.entry.effective_time_us)),
];

pub static NEW_ENTRIES: LazyLock<Rows<NewEntry>> =
    LazyLock::new(|| Rows::insert(&ENTRIES, "entry", &[ENTRY]));

const ACCOUNT_CHANGE: &[NamedValue<AccountChange>] = &[
    ("account_id", |it| it.account_id.as_str().into()),
    ("version", |it| it.version.into()),
    ("kind", |it| it.kind.name().into()),
    ("reason", |it| it.reason.as_str().into()),
    ("caller", |it| it.created_by.as_str().into()),
    ("attributes_before", |it| attributes_json(&it.before).into()),
    ("attributes_after", |it| attributes_json(&it.after).into()),
    ("create_time_us", |it| it.create_time_us.into()),
];

pub static NEW_ACCOUNT_CHANGES: LazyLock<Rows<AccountChange>> =
    LazyLock::new(|| Rows::insert(&ACCOUNT_CHANGES, "change", &[ACCOUNT_CHANGE]));

const COMMIT: &[NamedValue<NewCommit>] = &[
    ("create_time_us", |it| it.create_time_us.into()),
    ("transaction_ids", |it| it.transaction_ids.clone().into()),
    ("other_events", |it| nullable(it.other_events.clone())),
];

pub static NEW_COMMITS: LazyLock<Rows<NewCommit>> =
    LazyLock::new(|| Rows::insert(&COMMITS, "commit", &[COMMIT]));

/// What changes of a hold. The account is a part of the key, so that it does not matter
/// which index PostgreSQL searches: while the table has one row or none, `holds_of_account` costs
/// the same as the primary key, and by the hold's id alone all of it is read.
const HOLD_CHANGE: &[NamedValue<HoldOfAccount>] = &[
    ("account_key", |it| it.account_key.into()),
    ("hold_id", |it| it.hold.hold_id.as_str().into()),
    ("state", |it| it.hold.state.name().into()),
    ("amount", |it| it.hold.amount.decimal().into()),
    ("expire_time_us", |it| nullable(it.hold.expire_time_us)),
    ("placed", |it| nullable(placed_json(&it.hold))),
    ("captured_amount", |it| nullable(it.hold.captured.map(|it| it.amount.decimal()))),
    ("transaction_id", |it| nullable(it.hold.captured.map(|it| it.transaction_id))),
    ("update_time_us", |it| it.hold.update_time_us.into()),
    ("end_caller", |it| it.hold.ended_by.as_str().into()),
];

/// What never changes of a hold.
const PLACEMENT: &[NamedValue<HoldOfAccount>] = &[
    ("request_id", |it| it.hold.request_id.as_str().into()),
    ("description", |it| description(&it.hold.description)),
    ("labels", |it| labels(&it.hold.labels)),
    ("create_time_us", |it| it.hold.create_time_us.into()),
    ("caller", |it| it.hold.created_by.as_str().into()),
];

pub static NEW_HOLDS: LazyLock<Rows<HoldOfAccount>> =
    LazyLock::new(|| Rows::insert(&HOLDS, "hold id", &[HOLD_CHANGE, PLACEMENT]));

pub static CHANGED_HOLDS: LazyLock<Rows<HoldOfAccount>> =
    LazyLock::new(|| Rows::update(&HOLDS, "hold", 2, &[HOLD_CHANGE]));

/// Null for an empty description.
fn description(description: &str) -> Value {
    nullable((!description.is_empty()).then_some(description))
}

/// Null for no labels.
fn labels(labels: &Labels) -> Value {
    nullable((!labels.is_empty()).then(|| labels_json(labels)))
}

fn nullable(value: Option<impl Into<Value>>) -> Value {
    value.map_or(NULL, Into::into)
}
