//! The harness of the tests: databases, server processes, clients, loads, and a model. A test imports
//! all of it, with the messages of the contract.

pub mod audit_log;
pub mod client;
pub mod database;
pub mod load;
pub mod malformed;
pub mod model;
pub mod postgres;
pub mod server;
pub mod slots;
pub mod times;

use std::time::Duration;

pub use client::*;
pub use database::*;
pub use futures_util::future::join_all;
pub use load::*;
pub use passbook::proto::*;
pub use postgres::*;
pub use server::{
    Outcome, Server, passbook, passbook_in, passbook_of, program, start_error, start_loaded,
    start_loaded_server, start_server, start_server_with, start_two_servers, with_search_path,
};
pub use slots::Load;
pub use times::PATIENCE;
pub use tonic::{Code, Status};

/// Makes two tests of each `async fn(kind: Kind)`: `name::on_sqlite` and `name::on_postgres`. A
/// function that is not listed is dead code, which clippy rejects.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_sqlite() {
                super::$name(crate::harness::Kind::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_postgres() {
                super::$name(crate::harness::Kind::Postgres).await;
            }
        }
    )+};
}
pub(crate) use on_both_databases;

/// A seed for this run, printed so that a failure can be replayed: set PASSBOOK_TEST_SEED.
pub fn seed() -> u64 {
    let seed = match std::env::var("PASSBOOK_TEST_SEED") {
        Ok(text) => text.parse().expect("PASSBOOK_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("seed: PASSBOOK_TEST_SEED={seed}");
    seed
}

/// The factor for repetitions in tests: PASSBOOK_TEST_SCALE, 1 by default.
pub fn scale() -> usize {
    match std::env::var("PASSBOOK_TEST_SCALE") {
        Ok(text) => text.parse().expect("PASSBOOK_TEST_SCALE is a number"),
        Err(_) => 1,
    }
}

/// Reports a skipped test on standard error, which the test runner does not capture here.
pub fn skipped(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    // If standard error is closed, the report is lost.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// Polls until `holds` returns true. Fails after [`PATIENCE`] and says what it waited for.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Makes a named pipe.
pub fn make_pipe(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}
