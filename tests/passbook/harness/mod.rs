//! What the tests stand on: fresh databases, real server processes, a client, a checker that
//! reads the whole ledger by itself, and a proxy that breaks the line to PostgreSQL on command.

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
pub use load::*;
pub use postgres::*;
pub use server::{Outcome, Server, passbook, passbook_in, passbook_of};
pub use slots::Load;
pub use times::PATIENCE;

/// Makes of each named `async fn(kind: Kind)` two tests, `name::on_sqlite` and
/// `name::on_postgres`. A function that is not listed is dead code, which clippy refuses.
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

/// A seed for this run, printed so that a failure can be played again: set PASSBOOK_TEST_SEED.
pub fn seed() -> u64 {
    let seed = match std::env::var("PASSBOOK_TEST_SEED") {
        Ok(text) => text.parse().expect("PASSBOOK_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("seed: PASSBOOK_TEST_SEED={seed}");
    seed
}

/// By how much a test that repeats something does more of it than in a run of all tests:
/// PASSBOOK_TEST_SCALE, 1 if it is not set.
pub fn scale() -> usize {
    match std::env::var("PASSBOOK_TEST_SCALE") {
        Ok(text) => text.parse().expect("PASSBOOK_TEST_SCALE is a number"),
        Err(_) => 1,
    }
}

/// Says, past the test runner that keeps what a test prints, that a test did not run.
pub fn skipped(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    // Without anywhere to say it there is nothing left to do.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// Looks again and again until `holds`; after [`PATIENCE`] it fails and says what was waited for.
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
