-- step: copies the requests
LOCK TABLE accounts, entries, requests, holds IN ACCESS EXCLUSIVE MODE;
ALTER TABLE requests RENAME TO former_requests;
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
    hold_id text COLLATE "C",
    reverses_transaction_id uuid
);
INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, description,
        labels, entry_names, create_time_us, hold_id, reverses_transaction_id)
    SELECT caller, request_id, fingerprint || decode(repeat('00', 16), 'hex'), transaction_id, kind,
        rejection, coalesce(description, ''), coalesce(labels, '{}'),
        (SELECT coalesce(jsonb_agg(jsonb_build_array(
                (SELECT account_id FROM accounts
                    WHERE account_key = split_part(name, ':', 1)::bigint),
                split_part(name, ':', 2)::bigint) ORDER BY position), '[]')
            FROM string_to_table(NULLIF(entry_keys, ''), ' ') WITH ORDINALITY AS names (name, position)),
        create_time_us, hold_id, reverses_transaction_id
    FROM former_requests;

-- step: copies the entries
ALTER TABLE entries RENAME TO former_entries;
CREATE TABLE entries (
    account_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    transaction_id uuid NOT NULL,
    amount numeric NOT NULL,
    balance_after numeric NOT NULL,
    create_time_us bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT entries_amount_is_a_number CHECK (amount <> 'NaN' AND abs(amount) < 1e28),
    CONSTRAINT entries_balance_after_is_a_number
        CHECK (balance_after <> 'NaN' AND abs(balance_after) < 1e28)
);
INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, create_time_us, hash)
    SELECT a.account_id, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us, e.hash
    FROM former_entries e LEFT JOIN accounts a USING (account_key);

-- step: copies the holds
ALTER TABLE holds RENAME TO former_holds;
CREATE TABLE holds (
    hold_id text COLLATE "C" NOT NULL,
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
    caller text COLLATE "C" NOT NULL DEFAULT '',
    end_caller text COLLATE "C" NOT NULL DEFAULT '',
    CONSTRAINT holds_amount_is_positive CHECK (amount <> 'NaN' AND amount > 0 AND amount < 1e28),
    CONSTRAINT holds_captured_amount_is_within CHECK (captured_amount IS NULL
        OR (captured_amount <> 'NaN' AND captured_amount > 0 AND captured_amount <= amount)),
    CONSTRAINT holds_state_is_known CHECK (state IN ('open', 'captured', 'released', 'expired')),
    CONSTRAINT holds_captured_have_a_transaction CHECK (
        (state = 'captured') = (captured_amount IS NOT NULL)
        AND (state = 'captured') = (transaction_id IS NOT NULL))
);
INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, captured_amount, transaction_id,
        request_id, description, labels, create_time_us, update_time_us, caller, end_caller)
    SELECT h.hold_id, a.account_id, h.amount, h.state, h.expire_time_us, h.captured_amount,
        h.transaction_id, h.request_id, coalesce(h.description, ''), coalesce(h.labels, '{}'),
        h.create_time_us, h.update_time_us, h.caller, h.end_caller
    FROM former_holds h LEFT JOIN accounts a USING (account_key);

-- step: gives the tables the owners and the grants that they have now
DO $$
DECLARE
    former record;
BEGIN
    FOR former IN SELECT name, relowner::regrole AS owner, privilege_type, grantee
        FROM unnest(ARRAY['entries', 'requests', 'holds']) AS names (name)
        JOIN pg_class ON pg_class.oid = ('former_' || name)::regclass
        LEFT JOIN aclexplode(relacl) ON true
    LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO %s', former.name, former.owner);
        IF former.privilege_type IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %I TO %s', former.privilege_type, former.name,
                CASE former.grantee WHEN 0 THEN 'PUBLIC' ELSE former.grantee::regrole::text END);
        END IF;
    END LOOP;
END
$$;
DROP TABLE former_entries;
DROP TABLE former_requests;
DROP TABLE former_holds;

-- step: builds the indexes
ALTER TABLE entries ADD CONSTRAINT entries_pkey PRIMARY KEY (account_id, sequence);
CREATE TRIGGER entries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
ALTER TABLE requests ADD CONSTRAINT requests_pkey PRIMARY KEY (caller, request_id);
CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id);
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;
CREATE TRIGGER requests_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON requests
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
ALTER TABLE holds ADD CONSTRAINT holds_pkey PRIMARY KEY (hold_id);
CREATE INDEX holds_of_account ON holds (account_id, hold_id);
CREATE INDEX holds_that_are_open ON holds (account_id, hold_id) WHERE state = 'open';
CREATE INDEX holds_that_expire ON holds (account_id, expire_time_us)
    WHERE state = 'open' AND expire_time_us IS NOT NULL;
CREATE TRIGGER holds_are_kept BEFORE DELETE OR TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER holds_are_ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open'
        OR (NEW.hold_id, NEW.account_id, NEW.amount, NEW.expire_time_us, NEW.request_id,
            NEW.description, NEW.labels, NEW.create_time_us)
        IS DISTINCT FROM (OLD.hold_id, OLD.account_id, OLD.amount, OLD.expire_time_us,
            OLD.request_id, OLD.description, OLD.labels, OLD.create_time_us))
    EXECUTE FUNCTION passbook_refuse();
CREATE TRIGGER who_placed_holds_is_kept BEFORE UPDATE OF caller ON holds
    FOR EACH ROW EXECUTE FUNCTION passbook_refuse();

DROP TRIGGER account_keys_are_kept ON accounts;
ALTER TABLE accounts DROP COLUMN account_key;

-- step: reads statistics of the new tables
ANALYZE accounts, entries, requests, holds;
