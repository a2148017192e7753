-- One deposit in one database transaction on the tables of Passbook, to compare with `passbook bench`.
-- Variables: accounts, the number of accounts (pgbench.1, pgbench.2 ...).
\set n random(1, :accounts)
\set a random(1, 1000000000000000000)
\set b random(1, 1000000000000000000)
BEGIN;
SELECT balance, held, overdraft_limit, unlimited_overdraft, state, sequence + 1 AS next_sequence, version, account_key FROM accounts WHERE account_id = 'pgbench.' || :n FOR UPDATE \gset
INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys, create_time_us) VALUES ('', :a || '.' || :b, '\x00000000000000000000000000000000', gen_random_uuid(), 'deposit', :account_key || ':' || :next_sequence, 1);
INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash) VALUES (:account_key, :next_sequence, gen_random_uuid(), 1.00, :balance + 1.00, 1, '\x0000000000000000000000000000000000000000000000000000000000000000');
UPDATE accounts SET balance = balance + 1.00, sequence = :next_sequence, version = version + 1, update_time_us = 1 WHERE account_id = 'pgbench.' || :n;
COMMIT;
