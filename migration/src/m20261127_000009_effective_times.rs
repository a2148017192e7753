//! Gives entries an effective time.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// Null, as for nearly all entries, takes no room in a row, and no entry in the indexes.
//
// One index is for statements by effective time. The other finds the entries of an account that were
// written after some other entry, for a balance.
const POSTGRES_UP: &str = "
ALTER TABLE entries ADD COLUMN effective_time_us bigint;
CREATE INDEX entries_by_effective_time ON entries (account_key, effective_time_us, sequence)
    WHERE effective_time_us IS NOT NULL;
CREATE INDEX entries_with_effective_time ON entries (account_key, sequence)
    WHERE effective_time_us IS NOT NULL;
";

const SQLITE_UP: &str = "
ALTER TABLE entries ADD COLUMN effective_time_us INTEGER;
CREATE INDEX entries_by_effective_time ON entries (account_key, effective_time_us, sequence)
    WHERE effective_time_us IS NOT NULL;
CREATE INDEX entries_with_effective_time ON entries (account_key, sequence)
    WHERE effective_time_us IS NOT NULL;
";

// Fails while an entry has an effective time: its hash would be wrong without it.
const POSTGRES_DOWN: &str = "
ALTER TABLE entries ADD CONSTRAINT entries_have_no_effective_time CHECK (effective_time_us IS NULL);
DROP INDEX entries_with_effective_time;
DROP INDEX entries_by_effective_time;
ALTER TABLE entries DROP COLUMN effective_time_us;
";

const SQLITE_DOWN: &str = "
ALTER TABLE entries ADD COLUMN has_effective_time INTEGER CHECK (effective_time_us IS NULL);
ALTER TABLE entries DROP COLUMN has_effective_time;
DROP INDEX entries_with_effective_time;
DROP INDEX entries_by_effective_time;
ALTER TABLE entries DROP COLUMN effective_time_us;
";
