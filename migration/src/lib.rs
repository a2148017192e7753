//! Passbook's database schema, one migration a file.
//!
//! A migration that was published is never changed: a later one mends it. Nothing here
//! imports the entities of the service, which move on while migrations stay.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{
    MigrationTrait, SchemaManager, async_trait,
    sea_orm::{
        ConnectionTrait, DbBackend, DbErr, DynIden,
        sea_query::{Alias, IntoIden},
    },
};

mod m20261123_000001_create_ledger;
mod m20261125_000002_holds_and_history;
mod m20261125_000003_who_asked;
mod m20261126_000004_scales_are_kept;

/// The table of what was applied.
pub const TABLE: &str = "passbook_migrations";
/// Its name in the first versions, which is that of every program that uses SeaORM.
pub const FORMER_TABLE: &str = "seaql_migrations";

/// All migrations, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_ledger::Migration),
            Box::new(m20261125_000002_holds_and_history::Migration),
            Box::new(m20261125_000003_who_asked::Migration),
            Box::new(m20261126_000004_scales_are_kept::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new(TABLE).into_iden()
    }
}

/// Runs the SQL that is for this database.
async fn run(manager: &SchemaManager<'_>, postgres: &str, sqlite: &str) -> Result<(), DbErr> {
    let sql = match manager.get_database_backend() {
        DbBackend::Postgres => postgres,
        DbBackend::Sqlite => sqlite,
        other => {
            return Err(DbErr::Migration(format!(
                "{other:?} is not supported: PostgreSQL or SQLite"
            )));
        }
    };
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}
