//! Stores the decimals of every currency that has accounts, not only those of configured currencies:
//! ISO 4217 changes decimals now and then, and an account keeps those it was opened with. If accounts
//! of one currency differ, the largest number of decimals is stored, which fits all of them. A trigger
//! stores the decimals, so that a server of the previous version, which does not, continues to work.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// Stores the decimals of existing accounts without a lock on them. The trigger stores those of a new
// currency, at the latest with the next account that is opened in it.
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

// The stored decimals remain, because they do no harm.
const POSTGRES_DOWN: &str = "
DROP TRIGGER scales_are_kept ON accounts;
DROP FUNCTION passbook_keep_scale();
";

const SQLITE_DOWN: &str = "
DROP TRIGGER scales_are_kept;
DROP TRIGGER scales_that_change_are_kept;
";
