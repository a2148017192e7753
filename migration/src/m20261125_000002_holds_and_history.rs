//! Creates holds and account_changes, and adds the effects of a request that are no entries.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// requests.hold_id is the hold that an applied request placed or ended, and
// requests.reverses_transaction_id the transaction that it reversed. Servers of the previous version
// write neither. The unique index ensures that a transaction is reversed at most once. It contains only
// reversals, so other requests do not pay for it.
//
// An open hold can be ended once, and no other column of a hold ever changes. The partial indexes find
// the open and the expired holds of an account in a time that does not depend on its history.
const POSTGRES_UP: &str = r#"
ALTER TABLE requests ADD COLUMN hold_id text COLLATE "C";
ALTER TABLE requests ADD COLUMN reverses_transaction_id uuid;
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;

CREATE TABLE holds (
    hold_id text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    state text COLLATE "C" NOT NULL,
    expire_time_us bigint,
    captured_amount numeric,
    transaction_id uuid,
    request_id text COLLATE "C" NOT NULL,
    description text NOT NULL,
    labels jsonb NOT NULL,
    create_time_us bigint NOT NULL,
    update_time_us bigint NOT NULL,
    CONSTRAINT holds_amount_is_positive CHECK (amount <> 'NaN' AND amount > 0 AND amount < 1e28),
    CONSTRAINT holds_captured_amount_is_within CHECK (captured_amount IS NULL
        OR (captured_amount <> 'NaN' AND captured_amount > 0 AND captured_amount <= amount)),
    CONSTRAINT holds_state_is_known CHECK (state IN ('open', 'captured', 'released', 'expired')),
    CONSTRAINT holds_captured_have_a_transaction CHECK (
        (state = 'captured') = (captured_amount IS NOT NULL)
        AND (state = 'captured') = (transaction_id IS NOT NULL))
);
CREATE INDEX holds_of_account ON holds (account_id, hold_id);
CREATE INDEX holds_that_are_open ON holds (account_id, hold_id) WHERE state = 'open';
CREATE INDEX holds_that_expire ON holds (account_id, expire_time_us)
    WHERE state = 'open' AND expire_time_us IS NOT NULL;

CREATE TABLE account_changes (
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    caller text COLLATE "C" NOT NULL,
    attributes_before jsonb NOT NULL,
    attributes_after jsonb NOT NULL,
    create_time_us bigint NOT NULL,
    PRIMARY KEY (account_id, version)
);

CREATE TRIGGER holds_are_kept BEFORE DELETE OR TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open'
        OR (NEW.hold_id, NEW.account_id, NEW.amount, NEW.expire_time_us, NEW.request_id,
            NEW.description, NEW.labels, NEW.create_time_us)
        IS DISTINCT FROM (OLD.hold_id, OLD.account_id, OLD.amount, OLD.expire_time_us,
            OLD.request_id, OLD.description, OLD.labels, OLD.create_time_us))
    EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER account_changes_are_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON account_changes
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
"#;

const SQLITE_UP: &str = "
ALTER TABLE requests ADD COLUMN hold_id TEXT;
ALTER TABLE requests ADD COLUMN reverses_transaction_id BLOB;
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;

CREATE TABLE holds (
    hold_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    amount TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'captured', 'released', 'expired')),
    expire_time_us INTEGER,
    captured_amount TEXT,
    transaction_id BLOB,
    request_id TEXT NOT NULL,
    description TEXT NOT NULL,
    labels TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    update_time_us INTEGER NOT NULL,
    CHECK ((state = 'captured') = (captured_amount IS NOT NULL)
        AND (state = 'captured') = (transaction_id IS NOT NULL))
) WITHOUT ROWID;
CREATE INDEX holds_of_account ON holds (account_id, hold_id);
CREATE INDEX holds_that_are_open ON holds (account_id, hold_id) WHERE state = 'open';
CREATE INDEX holds_that_expire ON holds (account_id, expire_time_us)
    WHERE state = 'open' AND expire_time_us IS NOT NULL;

CREATE TABLE account_changes (
    account_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    caller TEXT NOT NULL,
    attributes_before TEXT NOT NULL,
    attributes_after TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    PRIMARY KEY (account_id, version)
) WITHOUT ROWID;

CREATE TRIGGER holds_are_not_deleted BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'DELETE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_not_replaced BEFORE INSERT ON holds
    WHEN EXISTS (SELECT 1 FROM holds WHERE hold_id = NEW.hold_id)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on holds is not allowed: the ledger is append-only'); END;
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    WHEN OLD.state <> 'open'
        OR NEW.hold_id <> OLD.hold_id OR NEW.account_id <> OLD.account_id
        OR NEW.amount <> OLD.amount OR NEW.expire_time_us IS NOT OLD.expire_time_us
        OR NEW.request_id <> OLD.request_id OR NEW.description <> OLD.description
        OR NEW.labels <> OLD.labels OR NEW.create_time_us <> OLD.create_time_us
    BEGIN SELECT RAISE(ABORT, 'UPDATE on holds is not allowed: a hold is ended once'); END;
CREATE TRIGGER account_changes_are_not_updated BEFORE UPDATE ON account_changes
    BEGIN SELECT RAISE(ABORT, 'UPDATE on account_changes is not allowed: the ledger is append-only'); END;
CREATE TRIGGER account_changes_are_not_deleted BEFORE DELETE ON account_changes
    BEGIN SELECT RAISE(ABORT, 'DELETE on account_changes is not allowed: the ledger is append-only'); END;
CREATE TRIGGER account_changes_are_not_replaced BEFORE INSERT ON account_changes
    WHEN EXISTS (SELECT 1 FROM account_changes
        WHERE account_id = NEW.account_id AND version = NEW.version)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on account_changes is not allowed: the ledger is append-only'); END;
";

// Fails while there is a hold that is not open, a change of an account, or a reversal: a repeat of its
// request would get another result, and a transaction could be reversed twice. Open holds are dropped, so
// no money is held.
const POSTGRES_DOWN: &str = "
ALTER TABLE account_changes ADD CONSTRAINT accounts_have_not_changed CHECK (false);
ALTER TABLE holds ADD CONSTRAINT holds_are_open CHECK (state = 'open');
ALTER TABLE requests ADD CONSTRAINT requests_reverse_nothing CHECK (reverses_transaction_id IS NULL);
UPDATE accounts SET held = '0'
    WHERE account_id IN (SELECT account_id FROM holds WHERE state = 'open');
DROP TABLE account_changes;
DROP TABLE holds;
DROP INDEX requests_reverses_transaction_id;
ALTER TABLE requests DROP COLUMN reverses_transaction_id;
ALTER TABLE requests DROP COLUMN hold_id;
";

const SQLITE_DOWN: &str = "
ALTER TABLE account_changes ADD COLUMN has_changed INTEGER CHECK (false);
ALTER TABLE holds ADD COLUMN has_ended INTEGER CHECK (state = 'open');
ALTER TABLE requests ADD COLUMN is_reversal INTEGER CHECK (reverses_transaction_id IS NULL);
ALTER TABLE requests DROP COLUMN is_reversal;
UPDATE accounts SET held = '0'
    WHERE account_id IN (SELECT account_id FROM holds WHERE state = 'open');
DROP TABLE account_changes;
DROP TABLE holds;
DROP INDEX requests_reverses_transaction_id;
ALTER TABLE requests DROP COLUMN reverses_transaction_id;
ALTER TABLE requests DROP COLUMN hold_id;
";
