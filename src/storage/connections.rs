//! How many connections there are.

use sea_orm::sqlx::{Database, Pool};

use crate::storage::{DatabaseKind, Store};

/// Open connections to the database.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// With nothing to do.
    pub idle: usize,
    /// At work.
    pub in_use: usize,
}

impl Store {
    /// Those that reads share.
    #[must_use]
    pub fn reader_connections(&self) -> Connections {
        match self.kind() {
            DatabaseKind::Postgres => count(self.readers.get_postgres_connection_pool()),
            DatabaseKind::Sqlite => count(self.readers.get_sqlite_connection_pool()),
        }
    }
}

fn count<DB: Database>(pool: &Pool<DB>) -> Connections {
    let (all, idle) = (pool.size() as usize, pool.num_idle());
    // The two are not read in one step.
    Connections { idle, in_use: all.saturating_sub(idle) }
}
