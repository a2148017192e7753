//! The decimals of every currency in which there are accounts, not only of those that are configured:
//! ISO 4217 changes them now and then, and an account keeps those it was opened with. Should accounts
//! of one currency differ, those that have the most count, so that each can be used with all of its
//! own. A trigger writes them down, so that a program of the version before, which does not, goes on.

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

// First those that are there, without a lock on the accounts; what is opened meanwhile in a currency
// that is new is written down by the next account of that currency.
const POSTGRES_UP: &str = r#"
INSERT INTO currencies (currency_code, currency_scale)
    SELECT currency_code, max(currency_scale) FROM accounts GROUP BY currency_code
    ON CONFLICT DO NOTHING;
CREATE FUNCTION passbook_keep_scale() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM currencies c WHERE c.currency_code = NEW.currency_code
            AND c.currency_scale >= NEW.currency_scale) THEN
        INSERT INTO currencies AS c (currency_code, currency_scale)
            VALUES (NEW.currency_code, NEW.currency_scale)
            ON CONFLICT (currency_code) DO UPDATE
            SET currency_scale = greatest(c.currency_scale, excluded.currency_scale);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER scales_are_kept AFTER INSERT OR UPDATE OF currency_scale ON accounts
    FOR EACH ROW EXECUTE FUNCTION passbook_keep_scale();
"#;

const SQLITE_UP: &str = "
INSERT INTO currencies (currency_code, currency_scale)
    SELECT currency_code, max(currency_scale) FROM accounts
    WHERE currency_code NOT IN (SELECT currency_code FROM currencies) GROUP BY currency_code;
CREATE TRIGGER scales_are_kept AFTER INSERT ON accounts
    WHEN NOT EXISTS (SELECT 1 FROM currencies WHERE currency_code = NEW.currency_code
        AND currency_scale >= NEW.currency_scale)
    BEGIN INSERT INTO currencies (currency_code, currency_scale)
        VALUES (NEW.currency_code, NEW.currency_scale)
        ON CONFLICT (currency_code) DO UPDATE SET currency_scale = excluded.currency_scale; END;
CREATE TRIGGER scales_that_change_are_kept AFTER UPDATE OF currency_scale ON accounts
    WHEN NOT EXISTS (SELECT 1 FROM currencies WHERE currency_code = NEW.currency_code
        AND currency_scale >= NEW.currency_scale)
    BEGIN INSERT INTO currencies (currency_code, currency_scale)
        VALUES (NEW.currency_code, NEW.currency_scale)
        ON CONFLICT (currency_code) DO UPDATE SET currency_scale = excluded.currency_scale; END;
";

// What was written down stays: to know it does no harm.
const POSTGRES_DOWN: &str = "
DROP TRIGGER scales_are_kept ON accounts;
DROP FUNCTION passbook_keep_scale();
";

const SQLITE_DOWN: &str = "
DROP TRIGGER scales_are_kept;
DROP TRIGGER scales_that_change_are_kept;
";
