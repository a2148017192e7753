//! What no program should do to the tables, and back again.

use crate::harness::{Kind, TestDatabase};

const TABLES: [&str; 4] = ["accounts", "entries", "requests", "holds"];

/// A database whose guards are gone, and a copy of what was right in it.
pub struct Tampering<'a>(&'a TestDatabase);

impl<'a> Tampering<'a> {
    /// Takes the triggers and unique indexes away that stand in the way.
    pub async fn begin(database: &'a TestDatabase) -> Self {
        match database.kind {
            Kind::Postgres => {
                for table in TABLES {
                    database.execute(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL")).await;
                }
            }
            Kind::Sqlite => {
                let triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'";
                for trigger in database.texts(triggers).await {
                    database.execute(&format!("DROP TRIGGER {trigger}")).await;
                }
            }
        }
        database.execute("DROP INDEX requests_transaction_id").await;
        for table in TABLES {
            database.execute(&format!("CREATE TABLE right_{table} AS SELECT * FROM {table}")).await;
        }
        Self(database)
    }

    /// Makes it right again.
    pub async fn undo(&self) {
        for table in TABLES {
            let undo =
                format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM right_{table}");
            self.0.execute(&undo).await;
        }
    }
}
