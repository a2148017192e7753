//! The tables of the ledger and their columns.
//!
//! Statements, the lines of an export and the order of values follow from these lists; a test
//! compares the entities with them. What a column means is said in the migration that made it.

use sea_orm::sea_query::ArrayType;

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
    /// Bytes.
    Bytes,
    /// A UUID: 16 bytes in SQLite.
    Uuid,
    /// JSON: text in SQLite.
    Json,
}

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnType,
    pub is_nullable: bool,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The name of one row: the `type` of its line in an export.
    pub row_name: &'static str,
    /// The first columns, so many, are the primary key.
    pub key_length: usize,
    pub columns: &'static [Column],
}

impl Table {
    /// The names of the columns, separated by commas, each with this prefix: `r.` or none.
    pub fn column_list(&self, prefix: &str) -> String {
        let names = self.columns.iter().map(|column| format!("{prefix}{}", column.name));
        names.collect::<Vec<_>>().join(", ")
    }

    /// The columns of the primary key.
    pub fn key(&self) -> &'static [Column] {
        &self.columns[..self.key_length]
    }
}

// PostgreSQL's arrays travel without null: a nullable column has a value instead that it never
// stores otherwise, an empty text or zero. A nullable UUID travels as text for that.
impl Column {
    /// The element type of the array in which the column's values travel to PostgreSQL.
    pub fn array_type(&self) -> ArrayType {
        match self.kind {
            ColumnType::Text | ColumnType::Json => ArrayType::String,
            ColumnType::SmallInteger => ArrayType::SmallInt,
            ColumnType::Integer => ArrayType::BigInt,
            ColumnType::Flag => ArrayType::Bool,
            ColumnType::Amount => ArrayType::Decimal,
            ColumnType::Bytes => ArrayType::Bytes,
            ColumnType::Uuid if self.is_nullable => ArrayType::String,
            ColumnType::Uuid => ArrayType::Uuid,
        }
    }

    /// The name of that type in PostgreSQL.
    pub fn array_type_name(&self) -> &'static str {
        match self.kind {
            ColumnType::Text | ColumnType::Json => "text[]",
            ColumnType::SmallInteger => "smallint[]",
            ColumnType::Integer => "bigint[]",
            ColumnType::Flag => "boolean[]",
            ColumnType::Amount => "numeric[]",
            ColumnType::Bytes => "bytea[]",
            ColumnType::Uuid if self.is_nullable => "text[]",
            ColumnType::Uuid => "uuid[]",
        }
    }

    /// The expression that makes an element of that array, named `value`, a value of the column.
    pub fn element_value(&self, value: &str) -> String {
        let is_number = matches!(self.kind, ColumnType::Integer | ColumnType::Amount);
        let value = match (self.is_nullable, is_number) {
            (false, _) => value.to_owned(),
            (true, true) => format!("NULLIF({value}, 0)"),
            (true, false) => format!("NULLIF({value}, '')"),
        };
        match self.kind {
            ColumnType::Json => format!("{value}::jsonb"),
            ColumnType::Uuid if self.is_nullable => format!("{value}::uuid"),
            _ => value,
        }
    }
}

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column { name, kind, is_nullable: false }
}

const fn nullable(name: &'static str, kind: ColumnType) -> Column {
    Column { name, kind, is_nullable: true }
}

pub const CURRENCIES: Table = Table {
    name: "currencies",
    row_name: "currency",
    key_length: 1,
    columns: &[
        column("currency_code", ColumnType::Text),
        column("currency_scale", ColumnType::SmallInteger),
    ],
};

pub const ACCOUNTS: Table = Table {
    name: "accounts",
    row_name: "account",
    key_length: 1,
    columns: &[
        column("account_id", ColumnType::Text),
        column("currency_code", ColumnType::Text),
        column("currency_scale", ColumnType::SmallInteger),
        column("balance", ColumnType::Amount),
        column("held", ColumnType::Amount),
        column("overdraft_limit", ColumnType::Amount),
        column("unlimited_overdraft", ColumnType::Flag),
        column("state", ColumnType::Text),
        column("sequence", ColumnType::Integer),
        column("version", ColumnType::Integer),
        column("last_hash", ColumnType::Bytes),
        column("labels", ColumnType::Json),
        column("create_time_us", ColumnType::Integer),
        column("update_time_us", ColumnType::Integer),
        column("caller", ColumnType::Text),
    ],
};

pub const REQUESTS: Table = Table {
    name: "requests",
    row_name: "request",
    key_length: 2,
    columns: &[
        column("caller", ColumnType::Text),
        column("request_id", ColumnType::Text),
        column("fingerprint", ColumnType::Bytes),
        column("transaction_id", ColumnType::Uuid),
        column("kind", ColumnType::Text),
        nullable("rejection", ColumnType::Text),
        column("description", ColumnType::Text),
        column("labels", ColumnType::Json),
        column("entry_names", ColumnType::Json),
        column("create_time_us", ColumnType::Integer),
        nullable("hold_id", ColumnType::Text),
        nullable("reverses_transaction_id", ColumnType::Uuid),
    ],
};

pub const ENTRIES: Table = Table {
    name: "entries",
    row_name: "entry",
    key_length: 2,
    columns: &[
        column("account_id", ColumnType::Text),
        column("sequence", ColumnType::Integer),
        column("transaction_id", ColumnType::Uuid),
        column("amount", ColumnType::Amount),
        column("balance_after", ColumnType::Amount),
        column("create_time_us", ColumnType::Integer),
        column("hash", ColumnType::Bytes),
    ],
};

pub const HOLDS: Table = Table {
    name: "holds",
    row_name: "hold",
    key_length: 1,
    columns: &[
        column("hold_id", ColumnType::Text),
        column("account_id", ColumnType::Text),
        column("amount", ColumnType::Amount),
        column("state", ColumnType::Text),
        nullable("expire_time_us", ColumnType::Integer),
        nullable("captured_amount", ColumnType::Amount),
        nullable("transaction_id", ColumnType::Uuid),
        column("request_id", ColumnType::Text),
        column("description", ColumnType::Text),
        column("labels", ColumnType::Json),
        column("create_time_us", ColumnType::Integer),
        column("update_time_us", ColumnType::Integer),
        column("caller", ColumnType::Text),
        column("end_caller", ColumnType::Text),
    ],
};

pub const ACCOUNT_CHANGES: Table = Table {
    name: "account_changes",
    row_name: "account_change",
    key_length: 2,
    columns: &[
        column("account_id", ColumnType::Text),
        column("version", ColumnType::Integer),
        column("kind", ColumnType::Text),
        column("reason", ColumnType::Text),
        column("caller", ColumnType::Text),
        column("attributes_before", ColumnType::Json),
        column("attributes_after", ColumnType::Json),
        column("create_time_us", ColumnType::Integer),
    ],
};

/// All tables, in the order of an export.
pub const TABLES: [&Table; 6] =
    [&CURRENCIES, &ACCOUNTS, &REQUESTS, &ENTRIES, &HOLDS, &ACCOUNT_CHANGES];

#[cfg(test)]
mod tests {
    use sea_orm::{EntityTrait, IdenStatic, Iterable};

    use super::*;
    use crate::storage::entity;

    fn check<E: EntityTrait>(table: &Table)
    where
        E::Column: IdenStatic,
    {
        let names: Vec<_> = E::Column::iter().map(|column| column.as_str()).collect();
        let expected: Vec<_> = table.columns.iter().map(|column| column.name).collect();
        assert_eq!(names, expected, "{}", table.name);
        assert_eq!(E::PrimaryKey::iter().count(), table.key_length, "{}", table.name);
        assert_eq!(E::default().table_name(), table.name);
    }

    #[test]
    fn entities_have_the_columns_of_their_tables() {
        check::<entity::currencies::Entity>(&CURRENCIES);
        check::<entity::accounts::Entity>(&ACCOUNTS);
        check::<entity::requests::Entity>(&REQUESTS);
        check::<entity::entries::Entity>(&ENTRIES);
        check::<entity::holds::Entity>(&HOLDS);
        check::<entity::account_changes::Entity>(&ACCOUNT_CHANGES);
    }
}
