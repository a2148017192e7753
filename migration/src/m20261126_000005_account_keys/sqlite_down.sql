-- step: copies the accounts
CREATE TABLE former_accounts (
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
    update_time_us INTEGER NOT NULL,
    caller TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
INSERT INTO former_accounts
    SELECT account_id, currency_code, currency_scale, balance, held, overdraft_limit,
        unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us,
        update_time_us, caller FROM accounts ORDER BY account_id;

-- step: copies the entries
CREATE TABLE former_entries (
    account_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    transaction_id BLOB NOT NULL,
    amount TEXT NOT NULL,
    balance_after TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (account_id, sequence)
) WITHOUT ROWID;
INSERT INTO former_entries
    SELECT a.account_id, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us, e.hash
    FROM entries e LEFT JOIN accounts a ON a.account_key = e.account_key;

-- step: copies the requests
CREATE TABLE former_requests (
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
    hold_id TEXT,
    reverses_transaction_id BLOB,
    PRIMARY KEY (caller, request_id)
) WITHOUT ROWID;
INSERT INTO former_requests
    SELECT caller, request_id, unhex(hex(fingerprint) || hex(zeroblob(16))), transaction_id, kind,
        rejection, coalesce(description, ''), coalesce(labels, '{}'),
        (SELECT json_group_array(json_array(
                (SELECT account_id FROM accounts
                    WHERE account_key = CAST(substr(name.value, 1, instr(name.value, ':') - 1) AS INTEGER)),
                CAST(substr(name.value, instr(name.value, ':') + 1) AS INTEGER)) ORDER BY name.key)
            FROM json_each('["' || replace(entry_keys, ' ', '","') || '"]') name
            WHERE entry_keys <> ''),
        create_time_us, hold_id, reverses_transaction_id
    FROM requests ORDER BY caller, request_id;

-- step: copies the holds
CREATE TABLE former_holds (
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
    caller TEXT NOT NULL DEFAULT '',
    end_caller TEXT NOT NULL DEFAULT '',
    CHECK ((state = 'captured') = (captured_amount IS NOT NULL)
        AND (state = 'captured') = (transaction_id IS NOT NULL))
) WITHOUT ROWID;
INSERT INTO former_holds
    SELECT h.hold_id, a.account_id, h.amount, h.state, h.expire_time_us, h.captured_amount,
        h.transaction_id, h.request_id, coalesce(h.description, ''), coalesce(h.labels, '{}'),
        h.create_time_us, h.update_time_us, h.caller, h.end_caller
    FROM holds h LEFT JOIN accounts a ON a.account_key = h.account_key ORDER BY h.hold_id;

-- step: replaces the tables, and builds the indexes
DROP TABLE accounts;
DROP TABLE entries;
DROP TABLE requests;
DROP TABLE holds;
ALTER TABLE former_accounts RENAME TO accounts;
ALTER TABLE former_entries RENAME TO entries;
ALTER TABLE former_requests RENAME TO requests;
ALTER TABLE former_holds RENAME TO holds;
CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id);
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;

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
CREATE TRIGGER who_opened_accounts_is_kept BEFORE UPDATE OF caller ON accounts
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on accounts is not allowed: it is kept'); END;
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

CREATE INDEX holds_of_account ON holds (account_id, hold_id);
CREATE INDEX holds_that_are_open ON holds (account_id, hold_id) WHERE state = 'open';
CREATE INDEX holds_that_expire ON holds (account_id, expire_time_us)
    WHERE state = 'open' AND expire_time_us IS NOT NULL;
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
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    BEGIN SELECT RAISE(ABORT, 'UPDATE of caller on holds is not allowed: it is kept'); END;
