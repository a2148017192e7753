//! Whether a server can work with the tables: their columns, and the rights of the database's role.

use sea_orm::ConnectionTrait;

use crate::storage::{StorageError, Store, dialect::DatabaseKind, tables::TABLES};

/// Tables whose rows are changed. To all of them rows are only added.
const UPDATED: [&str; 2] = ["accounts", "holds"];

impl Store {
    /// Checks that a server of this program can read and write all tables.
    ///
    /// # Errors
    /// A table or a column is missing, as after a migration of a newer program, or a right of the
    /// database's role.
    pub async fn check_tables(&self) -> Result<(), StorageError> {
        let kind = self.kind();
        let no_rows = TABLES.iter().map(|table| {
            let (columns, name) = (table.column_list(""), table.name);
            format!("(SELECT count(*) FROM (SELECT {columns} FROM {name} LIMIT 0) t)")
        });
        let statement = format!("SELECT {}", no_rows.collect::<Vec<_>>().join(", "));
        self.readers.query_one_raw(kind.statement(statement, [])).await?;
        if kind == DatabaseKind::Sqlite {
            return Ok(());
        }
        let added = TABLES.iter().map(|table| (table.name, "INSERT"));
        let needed = added.chain(UPDATED.map(|name| (name, "UPDATE")));
        let needed: Vec<_> =
            needed.map(|(table, right)| format!("('{table}', '{right}')")).collect();
        let missing = format!(
            "SELECT table_name, table_right FROM (VALUES {}) AS needed(table_name, table_right) \
             WHERE NOT has_table_privilege(table_name, table_right) LIMIT 1",
            needed.join(", ")
        );
        let Some(row) = self.readers.query_one_raw(kind.statement(missing, [])).await? else {
            return Ok(());
        };
        let (table, right): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        Err(StorageError::Forbidden(format!("the database's role lacks {right} on table {table}")))
    }
}
