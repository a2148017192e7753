//! The tables of the ledger and their columns, as the entities have them.
//!
//! Statements, the lines of an export and the order of values follow from these lists. What a
//! column means is said in the migration that made it.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use sea_orm::{
    ColumnTrait, ColumnType as EntityType, EntityTrait, Iterable, Value, sea_query::ArrayType,
};
use uuid::Uuid;

use crate::storage::entity::{
    account_changes, accounts, commits, currencies, entries, holds, requests,
};

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// A string.
    Text,
    /// An integer; of 16 bits in PostgreSQL.
    SmallInteger,
    /// An integer of 64 bits.
    Integer,
    /// A boolean.
    Flag,
    /// A decimal: NUMERIC in PostgreSQL, text in SQLite.
    Amount,
    /// A decimal that travels to PostgreSQL as text and so keeps its zeros: as a number, 0.00
    /// arrives as 0. No table has such a column; the import makes them of amounts.
    AmountAsText,
    /// Bytes.
    Bytes,
    /// A UUID: 16 bytes in SQLite.
    Uuid,
    /// JSON: text in SQLite.
    Json,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnType,
    pub is_nullable: bool,
    /// The database makes the value of a new row.
    pub is_generated: bool,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The name of one row: the `type` of its line in an export.
    pub row_name: &'static str,
    /// The first columns, so many, are the primary key.
    pub key_length: usize,
    pub columns: Vec<Column>,
}

impl Table {
    fn of<E: EntityTrait>(row_name: &'static str) -> Self {
        Self {
            name: E::default().table_name(),
            row_name,
            key_length: E::PrimaryKey::iter().count(),
            columns: E::Column::iter().map(Column::of).collect(),
        }
    }

    /// With this column as one that the database makes.
    fn generating(mut self, name: &str) -> Self {
        for column in self.columns.iter_mut().filter(|column| column.name == name) {
            column.is_generated = true;
        }
        self
    }

    /// The columns that get a value when a row is inserted.
    pub fn inserted(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated)
    }

    /// The end of an INSERT that returns what the database makes, with the key of each row. Empty if
    /// it makes nothing but keys.
    pub fn returning(&self) -> String {
        let others = &self.columns[self.key_length..];
        let generated = others.iter().filter(|column| column.is_generated);
        let generated: String = generated.map(|column| format!(", {}", column.name)).collect();
        let key: Vec<_> = self.key().iter().map(|column| column.name).collect();
        match generated.is_empty() {
            true => generated,
            false => format!(" RETURNING {}{generated}", key.join(", ")),
        }
    }

    /// The names of the columns, separated by commas, each with this prefix: `r.` or none.
    pub fn column_list(&self, prefix: &str) -> String {
        let names = self.columns.iter().map(|column| format!("{prefix}{}", column.name));
        names.collect::<Vec<_>>().join(", ")
    }

    /// The columns of the primary key.
    pub fn key(&self) -> &[Column] {
        &self.columns[..self.key_length]
    }
}

/// Null, as a value of any column.
pub const NULL: Value = Value::String(None);

impl Column {
    #[expect(clippy::unimplemented, reason = "each test that uses the table meets such a column")]
    fn of(column: impl ColumnTrait) -> Self {
        let definition = column.def();
        let kind = match definition.get_column_type() {
            EntityType::String(_) | EntityType::Text => ColumnType::Text,
            EntityType::SmallInteger => ColumnType::SmallInteger,
            EntityType::BigInteger => ColumnType::Integer,
            EntityType::Boolean => ColumnType::Flag,
            EntityType::Decimal(_) => ColumnType::Amount,
            EntityType::VarBinary(_) => ColumnType::Bytes,
            EntityType::Uuid => ColumnType::Uuid,
            EntityType::Json => ColumnType::Json,
            other => unimplemented!("a column of type {other:?}"),
        };
        let (name, is_nullable) = (column.as_str(), definition.is_null());
        Self { name, kind, is_nullable, is_generated: false }
    }

    /// The type of the elements of an array of the column's values, and the array's type in
    /// PostgreSQL.
    pub fn array_type(&self) -> (ArrayType, &'static str) {
        match self.kind {
            ColumnType::Text | ColumnType::Json | ColumnType::AmountAsText => {
                (ArrayType::String, "text[]")
            }
            ColumnType::SmallInteger => (ArrayType::SmallInt, "smallint[]"),
            ColumnType::Integer => (ArrayType::BigInt, "bigint[]"),
            ColumnType::Flag => (ArrayType::Bool, "boolean[]"),
            ColumnType::Amount => (ArrayType::Decimal, "numeric[]"),
            ColumnType::Bytes => (ArrayType::Bytes, "bytea[]"),
            ColumnType::Uuid => (ArrayType::Uuid, "uuid[]"),
        }
    }

    /// These values of the column as one array, as they travel to PostgreSQL. Arrays have no nulls:
    /// in their place stands a value that the column never has.
    pub fn array(&self, mut values: Vec<Value>) -> Value {
        if self.is_nullable {
            for value in values.iter_mut().filter(|value| **value == NULL) {
                *value = self.null_in_arrays().0;
            }
        }
        Value::Array(self.array_type().0, Some(Box::new(values)))
    }

    /// The value that stands for null in an array, and its SQL.
    pub fn null_in_arrays(&self) -> (Value, &'static str) {
        match self.kind {
            ColumnType::Integer => (0_i64.into(), "0"),
            ColumnType::Amount => (Decimal::ZERO.into(), "0"),
            ColumnType::Uuid => (Uuid::nil().into(), "'00000000-0000-0000-0000-000000000000'"),
            _ => ("".into(), "''"),
        }
    }

    /// The expression that makes an element of that array, named `value`, a value of the column.
    pub fn element_value(&self, value: &str) -> String {
        let value = match self.is_nullable {
            true => format!("NULLIF({value}, {})", self.null_in_arrays().1),
            false => value.to_owned(),
        };
        match self.kind {
            ColumnType::Json => format!("{value}::jsonb"),
            ColumnType::AmountAsText => format!("{value}::numeric"),
            _ => value,
        }
    }
}

pub static CURRENCIES: LazyLock<Table> =
    LazyLock::new(|| Table::of::<currencies::Entity>("currency"));
pub static ACCOUNTS: LazyLock<Table> =
    LazyLock::new(|| Table::of::<accounts::Entity>("account").generating("account_key"));
pub static REQUESTS: LazyLock<Table> = LazyLock::new(|| Table::of::<requests::Entity>("request"));
pub static ENTRIES: LazyLock<Table> = LazyLock::new(|| Table::of::<entries::Entity>("entry"));
pub static HOLDS: LazyLock<Table> = LazyLock::new(|| Table::of::<holds::Entity>("hold"));
pub static ACCOUNT_CHANGES: LazyLock<Table> =
    LazyLock::new(|| Table::of::<account_changes::Entity>("account_change"));

pub static COMMITS: LazyLock<Table> =
    LazyLock::new(|| Table::of::<commits::Entity>("commit").generating("number"));

/// All tables, in the order of an export.
pub static TABLES: [&LazyLock<Table>; TABLE_COUNT] =
    [&CURRENCIES, &ACCOUNTS, &REQUESTS, &ENTRIES, &HOLDS, &ACCOUNT_CHANGES, &COMMITS];
/// The number of tables.
pub const TABLE_COUNT: usize = 7;
