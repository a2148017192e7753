//! Passbook's database schema, one migration a file.
//!
//! A migration that was published is never changed: a later one mends it. Nothing here
//! imports the entities of the service, which move on while migrations stay.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{MigrationTrait, async_trait};

mod m20261123_000001_create_ledger;

/// All migrations, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261123_000001_create_ledger::Migration)]
    }
}
