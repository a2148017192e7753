//! PostgreSQL as a test breaks it: a proxy that cuts connections on command, servers of the test's
//! own (standbys, failover), and PgBouncer.

pub mod pgbouncer;
pub mod proxy;
pub mod servers;
