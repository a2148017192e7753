//! Who opened an account, placed a hold, ended it. Transactions and changes of accounts have had
//! it from the beginning. Until now callers were not authenticated, and what there is was made by
//! the caller without a name: the default is the truth, and a program of the version before,
//! which does not name these columns, goes on.

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

// The triggers name the columns, so they go first.
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
