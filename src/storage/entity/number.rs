//! An exact decimal column on both databases.

use std::sync::Arc;

use rust_decimal::Decimal;
use sea_orm::{
    ColIdx, ColumnType, DbErr, QueryResult, RuntimeErr, SqlxError, TryGetError, TryGetable, Value,
    sea_query::{ArrayType, Nullable, ValueType, ValueTypeErr},
};

/// NUMERIC on PostgreSQL, TEXT on SQLite. SeaORM's own `Decimal` is written to SQLite as text
/// too, but read back through `f64`, which loses digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub Decimal);

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Decimal(Some(number.0))
    }
}

impl TryGetable for Number {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        if row.try_as_sqlite_row().is_none() {
            return Decimal::try_get_by(row, index).map(Self);
        }
        let text = String::try_get_by(row, index)?;
        // The error of the driver for other values that it cannot decode: it names the column.
        Decimal::from_str_exact(&text).map(Self).map_err(|error| {
            let source = format!("{text:?} is not a decimal: {error}").into();
            let error = SqlxError::ColumnDecode { index: format!("{index:?}"), source };
            DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))).into()
        })
    }
}

impl ValueType for Number {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <Decimal as ValueType>::try_from(value).map(Self)
    }

    fn type_name() -> String {
        "Number".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Decimal
    }

    fn column_type() -> ColumnType {
        ColumnType::Decimal(None)
    }
}

impl Nullable for Number {
    fn null() -> Value {
        Value::Decimal(None)
    }
}
