//! Lets open holds change: their amounts, their expire times, and what is captured of them in parts.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// holds.placed is JSON: the amount and the expire time with which a hold was placed, if they have changed
// since. A repeat of its PlaceHold returns them. So no other program changes them by chance.
const POSTGRES_UP: &str = "
ALTER TABLE holds ADD COLUMN placed jsonb;
ALTER TABLE holds DROP CONSTRAINT holds_captured_have_a_transaction;
ALTER TABLE holds ADD CONSTRAINT holds_captured_have_a_transaction CHECK (
    (captured_amount IS NULL) = (transaction_id IS NULL)
    AND (state <> 'captured' OR captured_amount IS NOT NULL)
    AND (state <> 'open' OR captured_amount IS NULL OR captured_amount < amount));
DROP TRIGGER holds_are_ended_once ON holds;
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open'
        OR (NEW.hold_id, NEW.account_key, NEW.request_id, NEW.description, NEW.labels, NEW.create_time_us)
            IS DISTINCT FROM (OLD.hold_id, OLD.account_key, OLD.request_id, OLD.description, OLD.labels,
                OLD.create_time_us)
        OR ((NEW.amount, NEW.expire_time_us) IS DISTINCT FROM (OLD.amount, OLD.expire_time_us)
            AND NEW.placed IS NULL)
        OR (OLD.placed IS NOT NULL AND NEW.placed IS DISTINCT FROM OLD.placed)
        OR (OLD.captured_amount IS NOT NULL
            AND (NEW.captured_amount IS NULL OR NEW.captured_amount < OLD.captured_amount)))
    EXECUTE FUNCTION passbook_refuse();
";

// Fails while the amount or the expire time of a hold has changed: a repeat of its PlaceHold would get
// another result. Fails also while a hold of which a part was captured is not captured.
const POSTGRES_DOWN: &str = "
ALTER TABLE holds ADD CONSTRAINT holds_are_as_placed CHECK (placed IS NULL);
DROP TRIGGER holds_are_ended_once ON holds;
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open'
        OR (NEW.hold_id, NEW.account_key, NEW.amount, NEW.expire_time_us, NEW.request_id,
            NEW.description, NEW.labels, NEW.create_time_us)
        IS DISTINCT FROM (OLD.hold_id, OLD.account_key, OLD.amount, OLD.expire_time_us,
            OLD.request_id, OLD.description, OLD.labels, OLD.create_time_us))
    EXECUTE FUNCTION passbook_refuse();
ALTER TABLE holds DROP CONSTRAINT holds_captured_have_a_transaction;
ALTER TABLE holds ADD CONSTRAINT holds_captured_have_a_transaction CHECK (
    (state = 'captured') = (captured_amount IS NOT NULL)
    AND (state = 'captured') = (transaction_id IS NOT NULL));
ALTER TABLE holds DROP COLUMN placed;
";

// A check cannot be changed: the table is copied.
const SQLITE_UP: &str = "
CREATE TABLE new_holds (
    hold_id TEXT NOT NULL PRIMARY KEY,
    account_key INTEGER NOT NULL,
    amount TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'captured', 'released', 'expired')),
    expire_time_us INTEGER,
    open_until_us INTEGER GENERATED ALWAYS AS (CASE WHEN state = 'open' THEN expire_time_us END) VIRTUAL,
    captured_amount TEXT,
    transaction_id BLOB,
    request_id TEXT NOT NULL,
    description TEXT,
    labels TEXT,
    create_time_us INTEGER NOT NULL,
    update_time_us INTEGER NOT NULL,
    caller TEXT NOT NULL DEFAULT '',
    end_caller TEXT NOT NULL DEFAULT '',
    placed TEXT,
    CHECK ((captured_amount IS NULL) = (transaction_id IS NULL)
        AND (state <> 'captured' OR captured_amount IS NOT NULL))
) WITHOUT ROWID;
INSERT INTO new_holds (hold_id, account_key, amount, state, expire_time_us, captured_amount,
        transaction_id, request_id, description, labels, create_time_us, update_time_us, caller,
        end_caller)
    SELECT hold_id, account_key, amount, state, expire_time_us, captured_amount, transaction_id,
        request_id, description, labels, create_time_us, update_time_us, caller, end_caller
    FROM holds ORDER BY hold_id;
DROP TABLE holds;
ALTER TABLE new_holds RENAME TO holds;
CREATE INDEX holds_of_account ON holds (account_key, hold_id);
CREATE INDEX holds_that_expire ON holds (account_key, open_until_us) WHERE open_until_us IS NOT NULL;
CREATE TRIGGER holds_are_not_deleted BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'DELETE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_not_replaced BEFORE INSERT ON holds
    WHEN EXISTS (SELECT 1 FROM holds WHERE hold_id = NEW.hold_id)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    WHEN OLD.state <> 'open'
        OR NEW.hold_id <> OLD.hold_id OR NEW.account_key <> OLD.account_key
        OR NEW.request_id <> OLD.request_id OR NEW.description IS NOT OLD.description
        OR NEW.labels IS NOT OLD.labels OR NEW.create_time_us <> OLD.create_time_us
        OR ((NEW.amount <> OLD.amount OR NEW.expire_time_us IS NOT OLD.expire_time_us)
            AND NEW.placed IS NULL)
        OR (OLD.placed IS NOT NULL AND NEW.placed IS NOT OLD.placed)
        OR (OLD.captured_amount IS NOT NULL AND NEW.captured_amount IS NULL)
    BEGIN SELECT RAISE(ABORT, 'UPDATE on holds is not allowed: a hold is ended once'); END;
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on holds is not allowed: it is kept'); END;
";

const SQLITE_DOWN: &str = "
ALTER TABLE holds ADD COLUMN has_changed INTEGER CHECK (placed IS NULL);
CREATE TABLE former_holds (
    hold_id TEXT NOT NULL PRIMARY KEY,
    account_key INTEGER NOT NULL,
    amount TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'captured', 'released', 'expired')),
    expire_time_us INTEGER,
    open_until_us INTEGER GENERATED ALWAYS AS (CASE WHEN state = 'open' THEN expire_time_us END) VIRTUAL,
    captured_amount TEXT,
    transaction_id BLOB,
    request_id TEXT NOT NULL,
    description TEXT,
    labels TEXT,
    create_time_us INTEGER NOT NULL,
    update_time_us INTEGER NOT NULL,
    caller TEXT NOT NULL DEFAULT '',
    end_caller TEXT NOT NULL DEFAULT '',
    CHECK ((state = 'captured') = (captured_amount IS NOT NULL)
        AND (state = 'captured') = (transaction_id IS NOT NULL))
) WITHOUT ROWID;
INSERT INTO former_holds (hold_id, account_key, amount, state, expire_time_us, captured_amount,
        transaction_id, request_id, description, labels, create_time_us, update_time_us, caller,
        end_caller)
    SELECT hold_id, account_key, amount, state, expire_time_us, captured_amount, transaction_id,
        request_id, description, labels, create_time_us, update_time_us, caller, end_caller
    FROM holds ORDER BY hold_id;
DROP TABLE holds;
ALTER TABLE former_holds RENAME TO holds;
CREATE INDEX holds_of_account ON holds (account_key, hold_id);
CREATE INDEX holds_that_expire ON holds (account_key, open_until_us) WHERE open_until_us IS NOT NULL;
CREATE TRIGGER holds_are_not_deleted BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'DELETE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_not_replaced BEFORE INSERT ON holds
    WHEN EXISTS (SELECT 1 FROM holds WHERE hold_id = NEW.hold_id)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    WHEN OLD.state <> 'open'
        OR NEW.hold_id <> OLD.hold_id OR NEW.account_key <> OLD.account_key
        OR NEW.amount <> OLD.amount OR NEW.expire_time_us IS NOT OLD.expire_time_us
        OR NEW.request_id <> OLD.request_id OR NEW.description IS NOT OLD.description
        OR NEW.labels IS NOT OLD.labels OR NEW.create_time_us <> OLD.create_time_us
    BEGIN SELECT RAISE(ABORT, 'UPDATE on holds is not allowed: a hold is ended once'); END;
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on holds is not allowed: it is kept'); END;
";
