//! Creates commits: the events of each database transaction, in order.
//!
//! Changes from before get one commit each. A server of the version before writes none, so its changes
//! would be no events; m20261126_000005_account_keys has ended its writing.

use crate::{Migration, Sql};

// A number is drawn after all row locks of its database transaction, so numbers are the order in which an
// account changed. There are gaps: a rollback uses up a number. create_time_us identifies the commit:
// that of another ledger with the same number has another time.
//
// transaction_ids has 16 bytes for each applied request. They are random, so they are not compressed.
// other_events is JSON: [[1, {"account_opened": "alice"}]] is the opening of an account after one request.
pub(crate) const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql {
        postgres: concat!(
            include_str!("m20261126_000007_commits/postgres_up.sql"),
            include_str!("m20261126_000007_commits/postgres_history.sql")
        ),
        sqlite: concat!(
            include_str!("m20261126_000007_commits/sqlite_up.sql"),
            include_str!("m20261126_000007_commits/sqlite_history.sql")
        ),
    },
    down: Sql { postgres: DOWN, sqlite: DOWN },
};

/// Makes a commit of each change that has none, which is right for a ledger without commits.
///
/// One database transaction made all changes with one time, and the order of these is not kept. Openings
/// and expired holds come first, requests in the order of their first entry, and other changes last.
pub const HISTORY: Sql = Sql {
    postgres: include_str!("m20261126_000007_commits/postgres_history.sql"),
    sqlite: include_str!("m20261126_000007_commits/sqlite_history.sql"),
};

const DOWN: &str = "DROP TABLE commits;";
