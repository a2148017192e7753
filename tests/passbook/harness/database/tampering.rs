//! Tampers with the tables, and restores them.

use migration::m20261126_000007_commits::write_commits;
use sea_orm::TransactionTrait;
use sha2::{Digest, Sha256};

use crate::harness::{Kind, TestDatabase};

const TABLES: [&str; 6] =
    ["accounts", "entries", "requests", "holds", "account_changes", "commits"];

/// A database without its triggers, and a copy of its correct rows.
pub struct Tampering<'a> {
    database: &'a TestDatabase,
    /// The statements that restore triggers and index.
    restore: Vec<String>,
}

impl<'a> Tampering<'a> {
    /// Drops the triggers and the unique index that prevent tampering.
    pub async fn begin(database: &'a TestDatabase) -> Self {
        let mut restore = vec![
            "CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id)".to_owned(),
        ];
        match database.kind {
            Kind::Postgres => {
                for table in TABLES {
                    database.execute(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL")).await;
                    restore.push(format!("ALTER TABLE {table} ENABLE TRIGGER ALL"));
                }
            }
            Kind::Sqlite => {
                let triggers = "SELECT sql FROM sqlite_schema WHERE type = 'trigger'";
                restore.extend(database.texts(triggers).await);
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
        Self { database, restore }
    }

    /// Restores triggers and index, as a server needs them.
    pub async fn end(self) {
        for statement in &self.restore {
            self.database.execute(statement).await;
        }
        for table in TABLES {
            self.database.execute(&format!("DROP TABLE right_{table}")).await;
        }
    }

    /// Replaces all commits by those of the rows as they are.
    pub async fn make_commits(&self) {
        self.database.execute("DELETE FROM commits").await;
        let transaction = self.database.raw().await.begin().await.expect("a transaction");
        write_commits(&transaction).await.expect("the commits are made");
        transaction.commit().await.expect("committed");
    }

    /// Restores the rows.
    pub async fn undo(&self) {
        for table in TABLES {
            let columns = self.database.columns(table).await.join(", ");
            let undo = format!(
                "DELETE FROM {table};
                 INSERT INTO {table} ({columns}) SELECT {columns} FROM right_{table}"
            );
            self.database.execute(&undo).await;
        }
    }
}

/// The fingerprint of a PlaceHold in USD with these fields, as a value in SQL.
pub fn fingerprint_of_hold(
    kind: Kind,
    hold_id: &str,
    account_id: &str,
    amount: &str,
    description: &str,
) -> String {
    let fields = [
        ("kind", "place_hold"),
        ("hold_id", hold_id),
        ("account_id", account_id),
        ("currency_code", "USD"),
        ("amount", amount),
        ("description", description),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let parts = fields.flat_map(|(name, value)| [name, value]);
    let prefixed = parts.flat_map(|part| {
        let length = (part.len() as u64).to_be_bytes();
        length.into_iter().chain(part.bytes()).collect::<Vec<u8>>()
    });
    let hash = Sha256::digest(prefixed.collect::<Vec<u8>>());
    let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    match kind {
        Kind::Sqlite => format!("x'{digits}'"),
        Kind::Postgres => format!("'\\x{digits}'::bytea"),
    }
}
