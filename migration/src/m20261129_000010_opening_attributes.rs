//! Keeps the attributes with which an account was opened.

use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr};

use crate::{Migration, Sql};

// JSON without what is usual: {} is an account without an overdraft and without labels. A server of the
// version before writes null: nothing is known of the account's opening.
pub(crate) const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

const POSTGRES_UP: &str = concat!(
    "
ALTER TABLE accounts ADD COLUMN opening_attributes jsonb;
CREATE TRIGGER opening_attributes_are_kept BEFORE UPDATE OF opening_attributes ON accounts
    FOR EACH ROW WHEN (OLD.opening_attributes IS NOT NULL) EXECUTE FUNCTION passbook_refuse();
-- step: writes into each account
",
    include_str!("m20261129_000010_opening_attributes/postgres_fill.sql")
);

const SQLITE_UP: &str = concat!(
    "
ALTER TABLE accounts ADD COLUMN opening_attributes TEXT;
CREATE TRIGGER opening_attributes_are_kept BEFORE UPDATE OF opening_attributes ON accounts
    WHEN OLD.opening_attributes IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'UPDATE of opening_attributes on accounts is not allowed: they are kept'); END;
-- step: writes into each account
",
    include_str!("m20261129_000010_opening_attributes/sqlite_fill.sql")
);

const POSTGRES_DOWN: &str = "
DROP TRIGGER opening_attributes_are_kept ON accounts;
ALTER TABLE accounts DROP COLUMN opening_attributes;
";

const SQLITE_DOWN: &str = "
DROP TRIGGER opening_attributes_are_kept;
ALTER TABLE accounts DROP COLUMN opening_attributes;
";

/// Writes the opening attributes of all accounts that have none: those before the first change of the
/// account, or those that it has.
///
/// # Errors
/// Those of the database.
pub async fn write_opening_attributes(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let fill = match connection.get_database_backend() {
        DbBackend::Postgres => {
            include_str!("m20261129_000010_opening_attributes/postgres_fill.sql")
        }
        _ => include_str!("m20261129_000010_opening_attributes/sqlite_fill.sql"),
    };
    connection.execute_unprepared(fill).await.map(drop)
}
