//! Tampers with the tables, and restores them.

use migration::m20261126_000007_commits::write_commits;

use crate::harness::{Kind, TestDatabase};

const TABLES: [&str; 6] =
    ["accounts", "entries", "requests", "holds", "account_changes", "commits"];

/// A database without its triggers, and a copy of its correct rows.
pub struct Tampering<'a>(&'a TestDatabase);

impl<'a> Tampering<'a> {
    /// Drops the triggers and the unique index that prevent tampering.
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

    /// Replaces all commits by those of the rows as they are.
    pub async fn make_commits(&self) {
        self.0.execute("DELETE FROM commits").await;
        write_commits(self.0.raw().await).await.expect("the commits are made");
    }

    /// Restores the rows.
    pub async fn undo(&self) {
        for table in TABLES {
            let columns = self.0.columns(table).await.join(", ");
            let undo = format!(
                "DELETE FROM {table};
                 INSERT INTO {table} ({columns}) SELECT {columns} FROM right_{table}"
            );
            self.0.execute(&undo).await;
        }
    }
}
