//! Keeps the attributes with which an account was opened.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
    util::get_file_stem,
};

use crate::{Migration, Sql, has_accounts};

// JSON without what is usual: {} is an account without an overdraft and without labels. A server of the
// version before writes null: nothing is known of the account's opening.
const COLUMN: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: DOWN_ON_POSTGRES, sqlite: DOWN_ON_SQLITE },
};

const POSTGRES_UP: &str = "
ALTER TABLE accounts ADD COLUMN opening_attributes jsonb;
CREATE TRIGGER opening_attributes_are_kept BEFORE UPDATE OF opening_attributes ON accounts
    FOR EACH ROW WHEN (OLD.opening_attributes IS NOT NULL) EXECUTE FUNCTION passbook_refuse();
";

const SQLITE_UP: &str = "
ALTER TABLE accounts ADD COLUMN opening_attributes TEXT;
CREATE TRIGGER opening_attributes_are_kept BEFORE UPDATE OF opening_attributes ON accounts
    WHEN OLD.opening_attributes IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'UPDATE of opening_attributes on accounts is not allowed: they are kept'); END;
";

const DOWN_ON_POSTGRES: &str = "
DROP TRIGGER opening_attributes_are_kept ON accounts;
ALTER TABLE accounts DROP COLUMN opening_attributes;
";

const DOWN_ON_SQLITE: &str = "
DROP TRIGGER opening_attributes_are_kept;
ALTER TABLE accounts DROP COLUMN opening_attributes;
";

const FILL_ON_POSTGRES: &str = "
UPDATE accounts a SET opening_attributes = (
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'overdraft_limit', NULLIF((opening->>'overdraft_limit')::numeric, 0)::text,
        'unlimited_overdraft', NULLIF((opening->>'unlimited_overdraft')::boolean, false),
        'labels', NULLIF(opening->'labels', '{}')))
    FROM (SELECT coalesce(
        (SELECT c.attributes_before FROM account_changes c
            WHERE c.account_id = a.account_id ORDER BY c.version LIMIT 1),
        jsonb_build_object('overdraft_limit', a.overdraft_limit,
            'unlimited_overdraft', a.unlimited_overdraft, 'labels', a.labels)) AS opening) first)
WHERE opening_attributes IS NULL
";

// json_patch leaves out what is null.
const FILL_ON_SQLITE: &str = "
UPDATE accounts SET opening_attributes = (
    SELECT json_patch('{}', json_object(
        'overdraft_limit', iif(CAST(opening->>'overdraft_limit' AS REAL) = 0, NULL,
            opening->>'overdraft_limit'),
        'unlimited_overdraft', iif(opening->>'unlimited_overdraft', json('true'), NULL),
        'labels', json(NULLIF(opening->'labels', '{}'))))
    FROM (SELECT coalesce(
        (SELECT c.attributes_before FROM account_changes c
            WHERE c.account_id = accounts.account_id ORDER BY c.version LIMIT 1),
        json_object('overdraft_limit', overdraft_limit,
            'unlimited_overdraft', unlimited_overdraft, 'labels', json(labels))) AS opening))
WHERE opening_attributes IS NULL
";

pub(crate) struct OpeningAttributes;

impl MigrationName for OpeningAttributes {
    fn name(&self) -> &str {
        get_file_stem(file!())
    }
}

#[async_trait::async_trait]
impl MigrationTrait for OpeningAttributes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        COLUMN.up(manager).await?;
        let connection = manager.get_connection();
        if has_accounts(connection).await? {
            tracing::info!(migration = self.name(), "the migration writes into each account");
        }
        write_opening_attributes(connection).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        COLUMN.down(manager).await
    }
}

/// Writes the opening attributes of all accounts that have none: those before the first change of the
/// account, or those that it has.
///
/// # Errors
/// Those of the database.
pub async fn write_opening_attributes(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let sql = match connection.get_database_backend() {
        DbBackend::Postgres => FILL_ON_POSTGRES,
        _ => FILL_ON_SQLITE,
    };
    connection.execute_unprepared(sql).await.map(drop)
}
