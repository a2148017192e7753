//! Creates accounts, entries, requests and currencies, with triggers that reject changes of entries.
//!
//! Both databases have the same tables and columns. The SQL is separate, because collation, exact
//! numbers, clustering, fill factor and triggers differ.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// Identifiers have the collation "C": locks are taken in their order, which must be the same for
// every process with any locale.
//
// Amounts are unconstrained NUMERIC, which is exact and keeps its scale. NUMERIC has NaN, which
// sorts above every number and so passes `>= 0`: a check excludes it. The bound 1e28 is that of a
// currency with scale 0, the widest of all.
//
// accounts.fillfactor leaves room on each page for the next version of a row, so that an UPDATE of
// a balance stays on its page and changes no index (a HOT update).
//
// There are no foreign keys: the database transaction that writes an entry has locked its account,
// accounts are never deleted, and a foreign key would cost a lookup and a share lock for every entry.
const POSTGRES_UP: &str = r#"
CREATE TABLE currencies (
    currency_code text COLLATE "C" PRIMARY KEY,
    currency_scale smallint NOT NULL
);

CREATE TABLE accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    currency_code text COLLATE "C" NOT NULL,
    currency_scale smallint NOT NULL,
    balance numeric NOT NULL,
    held numeric NOT NULL,
    overdraft_limit numeric NOT NULL,
    unlimited_overdraft boolean NOT NULL,
    state text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    version bigint NOT NULL,
    last_hash bytea NOT NULL,
    labels jsonb NOT NULL,
    create_time_us bigint NOT NULL,
    update_time_us bigint NOT NULL,
    CONSTRAINT accounts_balance_is_a_number CHECK (balance <> 'NaN' AND abs(balance) < 1e28),
    CONSTRAINT accounts_held_is_not_negative CHECK (held <> 'NaN' AND held >= 0 AND held < 1e28),
    CONSTRAINT accounts_overdraft_limit_is_not_negative
        CHECK (overdraft_limit <> 'NaN' AND overdraft_limit >= 0 AND overdraft_limit < 1e28),
    CONSTRAINT accounts_available_is_not_negative
        CHECK (unlimited_overdraft OR balance - held + overdraft_limit >= 0),
    CONSTRAINT accounts_state_is_known CHECK (state IN ('open', 'frozen', 'closed')),
    CONSTRAINT accounts_sequence_is_not_negative CHECK (sequence >= 0 AND version > 0)
) WITH (fillfactor = 70);

CREATE TABLE entries (
    account_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    transaction_id uuid NOT NULL,
    amount numeric NOT NULL,
    balance_after numeric NOT NULL,
    create_time_us bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (account_id, sequence),
    CONSTRAINT entries_amount_is_a_number CHECK (amount <> 'NaN' AND abs(amount) < 1e28),
    CONSTRAINT entries_balance_after_is_a_number
        CHECK (balance_after <> 'NaN' AND abs(balance_after) < 1e28)
);

CREATE TABLE requests (
    caller text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    transaction_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    rejection text,
    description text NOT NULL,
    labels jsonb NOT NULL,
    entry_names jsonb NOT NULL,
    create_time_us bigint NOT NULL,
    PRIMARY KEY (caller, request_id)
);
CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id);

CREATE FUNCTION passbook_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER entries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER requests_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON requests
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER accounts_are_kept BEFORE DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
"#;

const POSTGRES_DOWN: &str = "
DROP TABLE entries;
DROP TABLE requests;
DROP TABLE accounts;
DROP TABLE currencies;
DROP FUNCTION passbook_refuse();
";

// Amounts are TEXT: SQLite has no exact decimal type, and a column with any other affinity would
// convert "0.10" to a float. Text compares byte by byte (BINARY), like the collation "C".
// WITHOUT ROWID stores each table in one b-tree, in the order of its key.
const SQLITE_UP: &str = "
CREATE TABLE currencies (
    currency_code TEXT NOT NULL PRIMARY KEY,
    currency_scale INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE accounts (
    account_id TEXT NOT NULL PRIMARY KEY,
    currency_code TEXT NOT NULL,
    currency_scale INTEGER NOT NULL,
    balance TEXT NOT NULL,
    held TEXT NOT NULL,
    overdraft_limit TEXT NOT NULL,
    unlimited_overdraft BOOLEAN NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'frozen', 'closed')),
    sequence INTEGER NOT NULL CHECK (sequence >= 0),
    version INTEGER NOT NULL CHECK (version > 0),
    last_hash BLOB NOT NULL,
    labels TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    update_time_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE entries (
    account_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    transaction_id BLOB NOT NULL,
    amount TEXT NOT NULL,
    balance_after TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (account_id, sequence)
) WITHOUT ROWID;

CREATE TABLE requests (
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    transaction_id BLOB NOT NULL,
    kind TEXT NOT NULL,
    rejection TEXT,
    description TEXT NOT NULL,
    labels TEXT NOT NULL,
    entry_names TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    PRIMARY KEY (caller, request_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id);

-- INSERT OR REPLACE deletes without firing a DELETE trigger: it needs a guard of its own.
CREATE TRIGGER entries_are_not_updated BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'UPDATE on entries is not allowed: the ledger is append-only'); END;
CREATE TRIGGER requests_are_not_updated BEFORE UPDATE ON requests
    BEGIN SELECT RAISE(ABORT, 'UPDATE on requests is not allowed: the ledger is append-only'); END;
CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'DELETE on entries is not allowed: the ledger is append-only'); END;
CREATE TRIGGER entries_are_not_replaced BEFORE INSERT ON entries
    WHEN EXISTS (SELECT 1 FROM entries WHERE account_id = NEW.account_id AND sequence = NEW.sequence)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on entries is not allowed: the ledger is append-only'); END;
CREATE TRIGGER requests_are_not_deleted BEFORE DELETE ON requests
    BEGIN SELECT RAISE(ABORT, 'DELETE on requests is not allowed: the ledger is append-only'); END;
CREATE TRIGGER requests_are_not_replaced BEFORE INSERT ON requests
    WHEN EXISTS (SELECT 1 FROM requests WHERE caller = NEW.caller AND request_id = NEW.request_id)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on requests is not allowed: the ledger is append-only'); END;
CREATE TRIGGER accounts_are_not_deleted BEFORE DELETE ON accounts
    BEGIN SELECT RAISE(ABORT, 'DELETE on accounts is not allowed: the ledger is append-only'); END;
CREATE TRIGGER accounts_are_not_replaced BEFORE INSERT ON accounts
    WHEN EXISTS (SELECT 1 FROM accounts WHERE account_id = NEW.account_id)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on accounts is not allowed: the ledger is append-only'); END;
";

const SQLITE_DOWN: &str = "
DROP TABLE entries;
DROP TABLE requests;
DROP TABLE accounts;
DROP TABLE currencies;
";
