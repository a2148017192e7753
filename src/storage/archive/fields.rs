//! The fields of a line: the columns of a row, in a form that belongs to no database.
//!
//! In the tables the key of an account stands for its id, and null for an empty text. A line has the
//! id and the text, as the columns of earlier versions had them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use sea_orm::{ConnectionTrait, QueryResult, Value};

use crate::{
    domain::ids::AccountId,
    storage::{
        StorageError,
        entity::requests::{entry_keys_text, parse_entry_keys},
        queries::accounts,
        tables::{Column, ColumnType, NULL, TABLE_COUNT, TABLES, Table},
    },
};

/// An entry as a line names it: its account and its sequence.
pub type EntryName = (AccountId, i64);

/// The values of a line, in the order of its fields.
pub type Row = Vec<Value>;

/// A field of a line.
pub struct Field {
    /// The column as the line has it.
    pub column: Column,
    pub form: Form,
}

/// How a value in a line differs from the stored one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    Stored,
    /// It is stored as null if it is empty.
    NeverNull,
    /// The id of an account, stored as its key.
    AccountId,
    /// JSON of [`EntryName`]s, stored as keys.
    EntryNames,
}

/// The fields of each table, in the order of its columns.
pub static FIELDS: LazyLock<[Vec<Field>; TABLE_COUNT]> = LazyLock::new(|| {
    TABLES.map(|table| table.inserted().map(|column| Field::of(table, column)).collect())
});

impl Field {
    fn of(table: &Table, column: &Column) -> Self {
        let mut column = column.clone();
        let form = match (table.row_name, column.name) {
            ("entry" | "hold", "account_key") => {
                (column.name, column.kind) = ("account_id", ColumnType::Text);
                Form::AccountId
            }
            ("request", "entry_keys") => {
                (column.name, column.kind) = ("entry_names", ColumnType::Json);
                Form::EntryNames
            }
            ("request" | "hold", "description" | "labels") => Form::NeverNull,
            _ => Form::Stored,
        };
        column.is_nullable &= form != Form::NeverNull;
        Self { column, form }
    }
}

/// The ids of all accounts that these rows of an export name by their keys.
pub async fn account_ids(
    connection: &impl ConnectionTrait,
    fields: &[Field],
    rows: &[QueryResult],
) -> Result<BTreeMap<i64, AccountId>, StorageError> {
    let mut keys = BTreeSet::new();
    for row in rows {
        for (index, field) in fields.iter().enumerate() {
            match field.form {
                Form::AccountId => {
                    keys.insert(row.try_get_by_index(index)?);
                }
                Form::EntryNames => {
                    let text: String = row.try_get_by_index(index)?;
                    keys.extend(parse_entry_keys(&text).into_iter().flatten().map(|key| key.0));
                }
                Form::Stored | Form::NeverNull => {}
            }
        }
    }
    match keys.is_empty() {
        true => Ok(BTreeMap::new()),
        false => accounts::ids(connection, keys.into_iter()).await,
    }
}

/// The names of entries that have these keys, or why there are none.
pub fn entry_names(
    keys: &str,
    account_ids: &BTreeMap<i64, AccountId>,
) -> Result<Vec<EntryName>, String> {
    let keys = parse_entry_keys(keys).ok_or("is not a list of keys")?;
    let name = |(account_key, sequence)| {
        let account_id = account_ids.get(&account_key).cloned();
        Ok((account_id.ok_or_else(|| format!("no account has the key {account_key}"))?, sequence))
    };
    keys.into_iter().map(name).collect()
}

/// Replaces the values of these lines by those that are stored.
pub async fn store_values(
    connection: &impl ConnectionTrait,
    fields: &[Field],
    rows: &mut [Row],
) -> Result<(), StorageError> {
    let mut account_ids = BTreeSet::new();
    for row in rows.iter() {
        for (field, value) in fields.iter().zip(row) {
            account_ids.extend(names_of(field, value).into_iter().map(|name| name.0));
        }
    }
    let keys = match account_ids.is_empty() {
        true => BTreeMap::new(),
        false => accounts::keys(connection, &account_ids).await?,
    };
    for row in rows {
        for (field, value) in fields.iter().zip(row) {
            let key = |(account_id, sequence): EntryName| {
                let key = keys.get(&account_id).copied();
                let missing = || StorageError::Data(format!("there is no account {account_id}"));
                Ok::<_, StorageError>((key.ok_or_else(missing)?, sequence))
            };
            let keys =
                names_of(field, value).into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
            match field.form {
                Form::Stored => {}
                Form::NeverNull if [Value::from(""), Value::from("{}")].contains(value) => {
                    *value = NULL;
                }
                Form::NeverNull => {}
                Form::AccountId => *value = keys.first().map(|key| key.0).into(),
                Form::EntryNames => *value = entry_keys_text(keys.into_iter()).into(),
            }
        }
    }
    Ok(())
}

/// The entries that a value of a line names; an account's id is one without a sequence.
fn names_of(field: &Field, value: &Value) -> Vec<EntryName> {
    match (field.form, value) {
        (Form::AccountId, Value::String(Some(id))) => vec![(AccountId::from_stored(id), 0)],
        // Checked when it was read.
        (Form::EntryNames, Value::String(Some(json))) => {
            serde_json::from_str(json).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}
