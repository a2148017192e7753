//! Gives every account a number, its key, by which entries, requests and holds name it: an id has up to
//! 64 bytes, in each entry, in its index, and in the request. Requests and holds lose what is empty or
//! can be half as long.
//!
//! Reads and writes all accounts, entries, requests and holds anew, while nobody else can use them.
//! Servers of the version before do not find the columns that they know, and reject every change with
//! SCHEMA_NOT_MIGRATED.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// requests.entry_keys has the keys of the request's entries, in order: "17:1 18:4" are entry 1 of account
// 17 and entry 4 of account 18. JSON with the ids took four times as much room.
//
// A fingerprint distinguishes bodies under the same request id, for which 128 bits are enough.
//
// Columns of a fixed length come first, without padding between them.
//
// While the index of holds that expire had the state in its condition, PostgreSQL wrote every index of a
// hold anew at the hold's end. open_until_us is null for a hold that does not expire, and remains so:
// the end of such a hold changes no index (a HOT update). A fifth of each page is for the second versions
// of rows: PostgreSQL uses that room again and again.
//
// The new tables get the owners and the grants of the former ones.
//
// An entry, a request or a hold that names an account that does not exist gets null here, and ends the
// migration.
const POSTGRES_UP: &str = include_str!("m20261126_000005_account_keys/postgres_up.sql");

// The former fingerprints are twice as long. The missing half is zero, so a server of the version before
// takes a repeat of a request for another one, and rejects it with REQUEST_ID_REUSED.
const POSTGRES_DOWN: &str = include_str!("m20261126_000005_account_keys/postgres_down.sql");

// accounts becomes a table with rowids, because only those SQLite makes itself: account_key is the rowid.
const SQLITE_UP: &str = include_str!("m20261126_000005_account_keys/sqlite_up.sql");

const SQLITE_DOWN: &str = include_str!("m20261126_000005_account_keys/sqlite_down.sql");
