//! The database schema of Passbook, with one file for each migration.
//!
//! A published migration is never changed: a later migration repairs its faults. Migrations never
//! import the entities of the service, because those change and migrations do not.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{
        ConnectionTrait, DbBackend, DbErr, DynIden, Statement,
        sea_query::{Alias, IntoIden},
    },
    util::get_file_stem,
};

mod m20261123_000001_create_ledger;
mod m20261125_000002_holds_and_history;
mod m20261125_000003_who_asked;
mod m20261126_000004_scales_are_kept;
mod m20261126_000005_account_keys;
mod m20261126_000006_force_and_parts;
pub mod m20261126_000007_commits;
mod m20261126_000008_living_holds;
mod m20261127_000009_effective_times;
pub mod m20261129_000010_opening_attributes;

/// The table of applied migrations.
pub const TABLE: &str = "passbook_migrations";
/// The name of that table in the first versions. It is the default of SeaORM, so other programs use it,
/// too.
pub const FORMER_TABLE: &str = "seaql_migrations";

/// All migrations, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_ledger::MIGRATION),
            Box::new(m20261125_000002_holds_and_history::MIGRATION),
            Box::new(m20261125_000003_who_asked::MIGRATION),
            Box::new(m20261126_000004_scales_are_kept::MIGRATION),
            Box::new(m20261126_000005_account_keys::MIGRATION),
            Box::new(m20261126_000006_force_and_parts::MIGRATION),
            Box::new(m20261126_000007_commits::Commits),
            Box::new(m20261126_000008_living_holds::MIGRATION),
            Box::new(m20261127_000009_effective_times::MIGRATION),
            Box::new(m20261129_000010_opening_attributes::MIGRATION),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new(TABLE).into_iden()
    }
}

/// A migration, named after its file.
struct Migration {
    file: &'static str,
    up: Sql,
    down: Sql,
}

/// The same statements for each database.
struct Sql {
    postgres: &'static str,
    sqlite: &'static str,
}

impl MigrationName for Migration {
    fn name(&self) -> &str {
        get_file_stem(self.file)
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.run(&self.up, manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.run(&self.down, manager).await
    }
}

impl Migration {
    /// Runs the SQL of the connected database, and logs each of its steps.
    async fn run(&self, sql: &Sql, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let backend = manager.get_database_backend();
        let sql = match backend {
            DbBackend::Postgres => sql.postgres,
            DbBackend::Sqlite => sql.sqlite,
            other => {
                let reason = format!("{other:?} is not supported: use PostgreSQL or SQLite");
                return Err(DbErr::Migration(reason));
            }
        };
        let steps: Vec<_> = steps(sql).collect();
        let takes_time =
            steps.iter().any(|(step, _)| !step.is_empty()) && has_accounts(connection).await?;
        for (step, sql) in steps {
            if !step.is_empty() && takes_time {
                tracing::info!(migration = self.name(), "the migration {step}");
            }
            match backend {
                DbBackend::Postgres => {
                    for statement in statements(sql) {
                        connection.execute_unprepared(statement).await?;
                    }
                }
                _ => {
                    connection.execute_unprepared(sql).await?;
                }
            }
        }
        Ok(())
    }
}

/// Whether there is a ledger. Without one no step takes time.
async fn has_accounts(connection: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let sql = "SELECT 1 FROM accounts LIMIT 1";
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    Ok(connection.query_one_raw(statement).await?.is_some())
}

/// Splits SQL into steps, each with what it does. `-- step: copies the entries` begins one.
fn steps(sql: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = sql.split("-- step: ");
    let before = parts.next().map(|sql| ("", sql));
    let steps = parts.filter_map(|step| step.split_once('\n'));
    before.into_iter().chain(steps).filter(|(_, sql)| !sql.trim().is_empty())
}

/// Splits SQL for PostgreSQL into statements, because some poolers and extensions (Citus) accept only
/// one statement in a call. A text between `$$` is not split.
fn statements(sql: &str) -> Vec<&str> {
    let (mut found, mut start, mut is_quoted) = (Vec::new(), 0, false);
    for (at, letter) in sql.char_indices() {
        if sql[at..].starts_with("$$") {
            is_quoted = !is_quoted;
        }
        if letter == ';' && !is_quoted {
            found.push(sql[start..at].trim());
            start = at + 1;
        }
    }
    found.push(sql[start..].trim());
    found.retain(|statement| !statement.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_statements() {
        let sql = "SELECT 1;\n-- step: copies\nSELECT 2;\n-- why\n-- step: builds\nSELECT 3;\n";
        let expected =
            [("", "SELECT 1;\n"), ("copies", "SELECT 2;\n-- why\n"), ("builds", "SELECT 3;\n")];
        assert!(steps(sql).eq(expected));
    }

    #[test]
    fn a_function_is_one_statement() {
        let function = "CREATE FUNCTION f() AS $$\nBEGIN\n    RETURN 1;\nEND;\n$$";
        let sql = format!("\nCREATE TABLE t (a text);\n\n{function};\nDROP TABLE t;\n");
        assert_eq!(statements(&sql), ["CREATE TABLE t (a text)", function, "DROP TABLE t"]);
        assert_eq!(statements("SELECT 1"), ["SELECT 1"]);
    }
}
