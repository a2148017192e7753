//! Adds the identity that opened an account, placed a hold, or ended a hold. Transactions and changes of
//! accounts have it from the beginning. Callers were not authenticated before this version, so the
//! empty identity is right for existing rows. It is the default, so a server of the previous version,
//! which does not write these columns, continues to work.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

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
