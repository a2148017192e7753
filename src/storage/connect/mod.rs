//! Finding the database, opening connections, and the settings of each session.
//!
//! * `url`: the database URL. `target`: which database and which server a connection is for.
//! * `hosts`: the primary among the hosts of a URL. `server_identity`: which server a session is with.
//!   `pooler`: detection of transaction pooling.
//! * `session`: the settings of a PostgreSQL session. `sqlite_file`: those of SQLite, and its file.
//!   `file_system`: where that file must not be.
//! * `pool`: pools of connections. `connection_counts`: how many connections there are, and what for.
//! * `write_lock`, `active_transactions`: what is being written at the moment.
//! * `store`: the handle to a database; `connect_error`: why it cannot be used.
//!
//! No file here knows a table of the ledger.

pub mod active_transactions;
pub mod connect_error;
pub mod connection_counts;
mod file_system;
pub mod hosts;
pub mod pool;
mod pooler;
mod server_identity;
pub mod session;
pub mod sqlite_file;
mod sqlite_log;
pub mod store;
pub mod target;
pub mod url;
pub mod write_lock;
