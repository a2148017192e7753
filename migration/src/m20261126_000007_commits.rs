//! Creates commits: the events of each database transaction, in order.
//!
//! Changes from before get one commit each. A server of the version before writes none, so its changes
//! would be no events; m20261126_000005_account_keys has ended its writing.

mod history;

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait, sea_orm::DbErr, util::get_file_stem,
};

pub use self::history::write_commits;
use crate::{Migration, Sql, has_accounts};

// A number is drawn after all row locks of its database transaction, so numbers are the order in which an
// account changed. There are gaps: a rollback uses up a number. create_time_us identifies the commit:
// that of another ledger with the same number has another time.
//
// transaction_ids has 16 bytes for each applied request. They are random, so they are not compressed.
// other_events is JSON: [[1, {"account_opened": "alice"}]] is the opening of an account after one request.
//
// The table gets the owner and the grants of requests, so that a role that only serves can write it.
const TABLE: Migration = Migration {
    file: file!(),
    up: Sql {
        postgres: include_str!("m20261126_000007_commits/postgres_up.sql"),
        sqlite: include_str!("m20261126_000007_commits/sqlite_up.sql"),
    },
    down: Sql { postgres: DOWN, sqlite: DOWN },
};

// The next up makes a commit of each event, with new numbers. A token of WatchEvents from before can name
// one of these, and then another position: docs/operations/upgrades.md says that tokens are void.
const DOWN: &str = "DROP TABLE commits;";

pub(crate) struct Commits;

impl MigrationName for Commits {
    fn name(&self) -> &str {
        get_file_stem(file!())
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Commits {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        TABLE.up(manager).await?;
        if has_accounts(manager.get_connection()).await? {
            tracing::info!(migration = self.name(), "the migration makes commits of all changes");
        }
        write_commits(manager.get_connection()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        TABLE.down(manager).await
    }
}
