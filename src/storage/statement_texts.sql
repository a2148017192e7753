-- INSERT_ACCOUNTS, postgres
INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, overdraft_limit,
unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, update_time_us,
caller) SELECT account_id, currency_code, currency_scale, balance, held, overdraft_limit,
unlimited_overdraft, state, sequence, version, last_hash, labels::jsonb, create_time_us,
update_time_us, caller FROM UNNEST($1::text[], $2::text[], $3::smallint[], $4::numeric[],
$5::numeric[], $6::numeric[], $7::boolean[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[],
$12::text[], $13::bigint[], $14::bigint[], $15::text[]) AS new(account_id, currency_code,
currency_scale, balance, held, overdraft_limit, unlimited_overdraft, state, sequence, version,
last_hash, labels, create_time_us, update_time_us, caller) ON CONFLICT DO NOTHING

-- INSERT_POSTINGS, postgres
WITH new_requests AS (INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind,
rejection, description, labels, entry_names, create_time_us, hold_id, reverses_transaction_id)
SELECT caller, request_id, fingerprint, transaction_id, kind, NULLIF(rejection, ''), description,
labels::jsonb, entry_names::jsonb, create_time_us, NULLIF(hold_id, ''),
NULLIF(reverses_transaction_id, '00000000-0000-0000-0000-000000000000') FROM UNNEST($1::text[],
$2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
$10::bigint[], $11::text[], $12::uuid[]) AS new(caller, request_id, fingerprint, transaction_id,
kind, rejection, description, labels, entry_names, create_time_us, hold_id,
reverses_transaction_id)), new_entries AS (INSERT INTO entries (account_id, sequence,
transaction_id, amount, balance_after, create_time_us, hash) SELECT account_id, sequence,
transaction_id, amount, balance_after, create_time_us, hash FROM UNNEST($13::text[], $14::bigint[],
$15::uuid[], $16::numeric[], $17::numeric[], $18::bigint[], $19::bytea[]) AS new(account_id,
sequence, transaction_id, amount, balance_after, create_time_us, hash)) UPDATE accounts SET balance
= new.balance, held = new.held, sequence = new.sequence, version = new.version, last_hash =
new.last_hash, update_time_us = new.update_time_us FROM UNNEST($20::text[], $21::numeric[],
$22::numeric[], $23::bigint[], $24::bigint[], $25::bytea[], $26::bigint[]) AS new(account_id,
balance, held, sequence, version, last_hash, update_time_us) WHERE accounts.account_id = ANY
(ARRAY[new.account_id COLLATE "C"])

-- UPDATE_ACCOUNTS, postgres
WITH new_changes AS (INSERT INTO account_changes (account_id, version, kind, reason, caller,
attributes_before, attributes_after, create_time_us) SELECT account_id, version, kind, reason,
caller, attributes_before::jsonb, attributes_after::jsonb, create_time_us FROM UNNEST($1::text[],
$2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[]) AS
new(account_id, version, kind, reason, caller, attributes_before, attributes_after, create_time_us))
UPDATE accounts SET balance = new.balance, held = new.held, sequence = new.sequence, version =
new.version, last_hash = new.last_hash, update_time_us = new.update_time_us, state = new.state,
overdraft_limit = new.overdraft_limit, unlimited_overdraft = new.unlimited_overdraft, labels =
new.labels::jsonb FROM UNNEST($9::text[], $10::numeric[], $11::numeric[], $12::bigint[],
$13::bigint[], $14::bytea[], $15::bigint[], $16::text[], $17::numeric[], $18::boolean[],
$19::text[]) AS new(account_id, balance, held, sequence, version, last_hash, update_time_us, state,
overdraft_limit, unlimited_overdraft, labels) WHERE accounts.account_id = ANY (ARRAY[new.account_id
COLLATE "C"])

-- INSERT_HOLDS, postgres
INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, captured_amount,
transaction_id, request_id, description, labels, create_time_us, update_time_us, caller, end_caller)
SELECT hold_id, account_id, amount, state, NULLIF(expire_time_us, 0), NULLIF(captured_amount, 0),
NULLIF(transaction_id, '00000000-0000-0000-0000-000000000000'), request_id, description,
labels::jsonb, create_time_us, update_time_us, caller, end_caller FROM UNNEST($1::text[],
$2::text[], $3::numeric[], $4::text[], $5::bigint[], $6::numeric[], $7::uuid[], $8::text[],
$9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[]) AS new(hold_id,
account_id, amount, state, expire_time_us, captured_amount, transaction_id, request_id, description,
labels, create_time_us, update_time_us, caller, end_caller)

-- UPDATE_HOLDS, postgres
UPDATE holds SET state = new.state, captured_amount = NULLIF(new.captured_amount, 0), transaction_id
= NULLIF(new.transaction_id, '00000000-0000-0000-0000-000000000000'), update_time_us =
new.update_time_us, end_caller = new.end_caller FROM UNNEST($1::text[], $2::text[], $3::text[],
$4::numeric[], $5::uuid[], $6::bigint[], $7::text[]) AS new(account_id, hold_id, state,
captured_amount, transaction_id, update_time_us, end_caller) WHERE holds.account_id = ANY
(ARRAY[new.account_id COLLATE "C"]) AND holds.hold_id >= new.hold_id COLLATE "C" AND holds.hold_id
<= new.hold_id COLLATE "C"

-- NEW_ACCOUNTS, sqlite
INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, overdraft_limit,
unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, update_time_us,
caller) VALUES (...)

-- NEW_REQUESTS, sqlite
INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, description,
labels, entry_names, create_time_us, hold_id, reverses_transaction_id) VALUES (...)

-- NEW_ENTRIES, sqlite
INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, create_time_us,
hash) VALUES (...)

-- BALANCE_UPDATES, sqlite
UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, version =
new.column5, last_hash = new.column6, update_time_us = new.column7 FROM (VALUES (...)) AS new WHERE
accounts.account_id = new.column1

-- ACCOUNT_UPDATES, sqlite
UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, version =
new.column5, last_hash = new.column6, update_time_us = new.column7, state = new.column8,
overdraft_limit = new.column9, unlimited_overdraft = new.column10, labels = new.column11 FROM
(VALUES (...)) AS new WHERE accounts.account_id = new.column1

-- NEW_ACCOUNT_CHANGES, sqlite
INSERT INTO account_changes (account_id, version, kind, reason, caller, attributes_before,
attributes_after, create_time_us) VALUES (...)

-- NEW_HOLDS, sqlite
INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, captured_amount,
transaction_id, request_id, description, labels, create_time_us, update_time_us, caller, end_caller)
VALUES (...)

-- CLOSED_HOLDS, sqlite
UPDATE holds SET state = new.column3, captured_amount = new.column4, transaction_id = new.column5,
update_time_us = new.column6, end_caller = new.column7 FROM (VALUES (...)) AS new WHERE
holds.account_id = new.column1 AND holds.hold_id = new.column2

-- requests::RECORDS, postgres
SELECT clock.now_us, r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection,
r.description, r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id FROM
(SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now_us) clock LEFT JOIN
(SELECT r.* FROM UNNEST($1::text[], $2::text[]) AS key(caller, request_id) CROSS JOIN LATERAL
(SELECT * FROM requests r WHERE r.caller = key.caller COLLATE "C" AND r.request_id = key.request_id
COLLATE "C" LIMIT 1) r) r ON true

-- requests::RECORDS, sqlite
SELECT clock.now_us, r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection,
r.description, r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id FROM
(SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 AS now_us) clock LEFT JOIN (SELECT r.*
FROM json_each(?) key JOIN requests r ON r.caller = key.value->>0 AND r.request_id = key.value->>1)
r ON true

-- entries::BY_KEY, postgres
SELECT e.account_id, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us,
e.hash, a.currency_code, a.currency_scale FROM UNNEST($1::text[], $2::bigint[]) AS name(account_id,
sequence) CROSS JOIN LATERAL (SELECT * FROM entries e WHERE e.account_id = name.account_id COLLATE
"C" AND e.sequence = name.sequence LIMIT 1) e CROSS JOIN LATERAL (SELECT a.currency_code,
a.currency_scale FROM accounts a WHERE a.account_id = e.account_id LIMIT 1) a

-- entries::BY_KEY, sqlite
SELECT e.account_id, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us,
e.hash, a.currency_code, a.currency_scale FROM json_each(?) name JOIN entries e ON e.account_id =
name.value->>0 AND e.sequence = name.value->>1 JOIN accounts a ON a.account_id = e.account_id

-- holds::BY_KEY, postgres
SELECT clock.now_us, h.* FROM (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS
bigint) AS now_us) clock LEFT JOIN (SELECT h.hold_id, h.account_id, h.amount, h.state,
h.expire_time_us, h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels,
h.create_time_us, h.update_time_us, h.caller, h.end_caller, a.currency_code, a.currency_scale FROM
UNNEST($1::text[]) AS name(hold_id) CROSS JOIN LATERAL (SELECT * FROM holds h WHERE h.hold_id >=
name.hold_id COLLATE "C" AND h.hold_id <= name.hold_id COLLATE "C" ORDER BY h.hold_id LIMIT 1) h
CROSS JOIN LATERAL (SELECT a.currency_code, a.currency_scale FROM accounts a WHERE a.account_id =
h.account_id LIMIT 1) a UNION ALL SELECT * FROM (SELECT h.hold_id, h.account_id, h.amount, h.state,
h.expire_time_us, h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels,
h.create_time_us, h.update_time_us, h.caller, h.end_caller, a.currency_code, a.currency_scale FROM
UNNEST($2::text[]) AS held(account_id) CROSS JOIN LATERAL (SELECT * FROM holds h WHERE h.account_id
= held.account_id COLLATE "C" AND h.state = 'open' AND h.expire_time_us <= CAST(extract(epoch FROM
statement_timestamp()) * 1000000 AS bigint) + 1000000 ORDER BY h.expire_time_us LIMIT 5000) h CROSS
JOIN LATERAL (SELECT a.currency_code, a.currency_scale FROM accounts a WHERE a.account_id =
h.account_id LIMIT 1) a ORDER BY h.expire_time_us LIMIT 5000) expired ) h ON true

-- holds::BY_KEY, sqlite
SELECT clock.now_us, h.* FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 AS now_us)
clock LEFT JOIN (SELECT h.hold_id, h.account_id, h.amount, h.state, h.expire_time_us,
h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels, h.create_time_us,
h.update_time_us, h.caller, h.end_caller, a.currency_code, a.currency_scale FROM json_each(?) name
JOIN holds h ON h.hold_id = name.value JOIN accounts a ON a.account_id = h.account_id UNION ALL
SELECT * FROM (SELECT h.hold_id, h.account_id, h.amount, h.state, h.expire_time_us,
h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels, h.create_time_us,
h.update_time_us, h.caller, h.end_caller, a.currency_code, a.currency_scale FROM json_each(?) held
JOIN holds h ON h.account_id = held.value AND h.state = 'open' AND h.expire_time_us <=
CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 + 1000000 JOIN accounts a ON a.account_id =
h.account_id ORDER BY h.expire_time_us LIMIT 5000) expired ) h ON true

-- new_entries::NEW_ENTRIES, postgres
SELECT watched.position - 1 AS position, e.* FROM UNNEST($1::text[], $2::bigint[]) WITH ORDINALITY
AS watched(account_id, after_sequence, position) CROSS JOIN LATERAL ( SELECT account_id, sequence,
transaction_id, amount, balance_after, create_time_us, hash FROM entries WHERE account_id =
watched.account_id COLLATE "C" AND sequence > watched.after_sequence ORDER BY sequence LIMIT $3) e

-- new_entries::NEW_ENTRIES, sqlite
SELECT watched.key AS position, e.account_id, e.sequence, e.transaction_id, e.amount,
e.balance_after, e.create_time_us, e.hash FROM json_each(?) watched CROSS JOIN entries e WHERE
e.account_id = watched.value->>0 AND e.sequence > watched.value->>1 AND e.sequence <=
(watched.value->>1) + ?

-- opening_attributes::OPENINGS, postgres
SELECT opening.account_id, opening.version, opening.kind, opening.reason, opening.caller,
opening.attributes_before, opening.attributes_after, opening.create_time_us FROM unnest($1::text[])
AS wanted (account_id) CROSS JOIN LATERAL (SELECT * FROM account_changes c WHERE c.account_id =
wanted.account_id ORDER BY c.version LIMIT 1) AS opening

-- opening_attributes::OPENINGS, sqlite
SELECT opening.account_id, opening.version, opening.kind, opening.reason, opening.caller,
opening.attributes_before, opening.attributes_after, opening.create_time_us FROM json_each(?) AS
wanted CROSS JOIN account_changes AS opening WHERE opening.account_id = wanted.value AND
opening.version = (SELECT min(c.version) FROM account_changes c WHERE c.account_id = wanted.value)

-- transactions::LIST, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id FROM requests r
WHERE r.transaction_id < $5 AND r.transaction_id >= $6 AND r.rejection IS NULL AND r.kind IN
('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND (CAST($1 AS text) = ''
OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us < $3 AND r.labels @>
CAST($4 AS jsonb) ORDER BY r.transaction_id DESC LIMIT $7

-- transactions::LIST, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id FROM requests r
WHERE r.transaction_id < $5 AND r.transaction_id >= $6 AND r.rejection IS NULL AND r.kind IN
('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND (CAST($1 AS text) = ''
OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us < $3 AND NOT EXISTS
(SELECT 1 FROM json_each($4) wanted WHERE NOT EXISTS (SELECT 1 FROM json_each(r.labels) had WHERE
had.key = wanted.key AND had.value = wanted.value)) ORDER BY r.transaction_id DESC LIMIT $7

-- transactions::LIST_OF_ACCOUNT, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id, e.sequence FROM
entries e JOIN requests r ON r.transaction_id = e.transaction_id WHERE e.account_id = $5 AND
e.sequence < $6 AND e.sequence >= $7 AND NOT EXISTS (SELECT 1 FROM entries n WHERE n.account_id =
e.account_id AND n.sequence = e.sequence + 1 AND n.transaction_id = e.transaction_id) AND
r.rejection IS NULL AND r.kind IN ('deposit', 'withdrawal', 'transfer', 'posting', 'capture',
'reversal') AND (CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND
r.create_time_us < $3 AND r.labels @> CAST($4 AS jsonb) ORDER BY e.sequence DESC LIMIT $8

-- transactions::LIST_OF_ACCOUNT, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_names, r.create_time_us, r.hold_id, r.reverses_transaction_id, e.sequence FROM
entries e JOIN requests r ON r.transaction_id = e.transaction_id WHERE e.account_id = $5 AND
e.sequence < $6 AND e.sequence >= $7 AND NOT EXISTS (SELECT 1 FROM entries n WHERE n.account_id =
e.account_id AND n.sequence = e.sequence + 1 AND n.transaction_id = e.transaction_id) AND
r.rejection IS NULL AND r.kind IN ('deposit', 'withdrawal', 'transfer', 'posting', 'capture',
'reversal') AND (CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND
r.create_time_us < $3 AND NOT EXISTS (SELECT 1 FROM json_each($4) wanted WHERE NOT EXISTS (SELECT 1
FROM json_each(r.labels) had WHERE had.key = wanted.key AND had.value = wanted.value)) ORDER BY
e.sequence DESC LIMIT $8
