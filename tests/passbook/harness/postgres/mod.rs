//! PostgreSQL under the control of a test: a proxy that breaks connections on command, servers for
//! failover, and PgBouncer.

pub mod auto_explain;
pub mod pgbouncer;
pub mod proxy;
pub mod servers;
