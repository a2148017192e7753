//! Adds the identity that opened an account, placed a hold, or ended a hold. Transactions and changes of
//! accounts have it from the beginning. Callers were not authenticated before this version, so the
//! empty identity is right for existing rows. It is the default, so a server of the previous version,
//! which does not write these columns, continues to work.

use sea_orm_migration::prelude::*;

use crate::run;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, POSTGRES_UP, SQLITE_UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, POSTGRES_DOWN, SQLITE_DOWN).await
    }
}

const POSTGRES_UP: &str = r#"
ALTER TABLE accounts ADD COLUMN caller text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN caller text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN end_caller text COLLATE "C" NOT NULL DEFAULT '';
CREATE TRIGGER who_opened_accounts_is_kept BEFORE UPDATE OF caller ON accounts
    FOR EACH ROW EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    FOR EACH ROW EXECUTE FUNCTION passbook_refuse();
"#;

const SQLITE_UP: &str = "
ALTER TABLE accounts ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN end_caller TEXT NOT NULL DEFAULT '';
CREATE TRIGGER who_opened_accounts_is_kept BEFORE UPDATE OF caller ON accounts
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on accounts is not allowed: it is kept'); END;
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on holds is not allowed: it is kept'); END;
";

// The triggers depend on the columns, so they are dropped first.
const POSTGRES_DOWN: &str = "
DROP TRIGGER who_opened_accounts_is_kept ON accounts;
DROP TRIGGER who_placed_holds_is_kept ON holds;
ALTER TABLE holds DROP COLUMN end_caller, DROP COLUMN caller;
ALTER TABLE accounts DROP COLUMN caller;
";

const SQLITE_DOWN: &str = "
DROP TRIGGER who_opened_accounts_is_kept;
DROP TRIGGER who_placed_holds_is_kept;
ALTER TABLE holds DROP COLUMN end_caller;
ALTER TABLE holds DROP COLUMN caller;
ALTER TABLE accounts DROP COLUMN caller;
";
