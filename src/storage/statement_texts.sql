-- INSERT_ACCOUNTS, postgres
INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, overdraft_limit,
unlimited_overdraft, below_limit, state, sequence, version, last_hash, labels, create_time_us,
update_time_us, caller, opening_attributes) SELECT account_id, currency_code, currency_scale,
balance, held, overdraft_limit, unlimited_overdraft, below_limit, state, sequence, version,
last_hash, labels::jsonb, create_time_us, update_time_us, caller, NULLIF(opening_attributes,
'')::jsonb FROM (SELECT UNNEST($1::text[]) AS account_id, UNNEST($2::text[]) AS currency_code,
UNNEST($3::smallint[]) AS currency_scale, UNNEST($4::numeric[]) AS balance, UNNEST($5::numeric[]) AS
held, UNNEST($6::numeric[]) AS overdraft_limit, UNNEST($7::boolean[]) AS unlimited_overdraft,
UNNEST($8::boolean[]) AS below_limit, UNNEST($9::text[]) AS state, UNNEST($10::bigint[]) AS
sequence, UNNEST($11::bigint[]) AS version, UNNEST($12::bytea[]) AS last_hash, UNNEST($13::text[])
AS labels, UNNEST($14::bigint[]) AS create_time_us, UNNEST($15::bigint[]) AS update_time_us,
UNNEST($16::text[]) AS caller, UNNEST($17::text[]) AS opening_attributes) AS new ON CONFLICT DO
NOTHING RETURNING account_id, account_key

-- INSERT_POSTINGS, postgres
WITH new_requests AS (INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind,
rejection, description, labels, entry_keys, create_time_us, hold_id, reverses_transaction_id,
details) SELECT caller, request_id, fingerprint, transaction_id, kind, NULLIF(rejection, ''),
NULLIF(description, ''), NULLIF(labels, '')::jsonb, entry_keys, create_time_us, NULLIF(hold_id, ''),
NULLIF(reverses_transaction_id, '00000000-0000-0000-0000-000000000000'), NULLIF(details, '')::jsonb
FROM (SELECT UNNEST($1::text[]) AS caller, UNNEST($2::text[]) AS request_id, UNNEST($3::bytea[]) AS
fingerprint, UNNEST($4::uuid[]) AS transaction_id, UNNEST($5::text[]) AS kind, UNNEST($6::text[]) AS
rejection, UNNEST($7::text[]) AS description, UNNEST($8::text[]) AS labels, UNNEST($9::text[]) AS
entry_keys, UNNEST($10::bigint[]) AS create_time_us, UNNEST($11::text[]) AS hold_id,
UNNEST($12::uuid[]) AS reverses_transaction_id, UNNEST($13::text[]) AS details) AS new), new_entries
AS (INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us) SELECT account_key, sequence, transaction_id, amount,
balance_after, create_time_us, hash, NULLIF(effective_time_us, 0) FROM (SELECT UNNEST($14::bigint[])
AS account_key, UNNEST($15::bigint[]) AS sequence, UNNEST($16::uuid[]) AS transaction_id,
UNNEST($17::numeric[]) AS amount, UNNEST($18::numeric[]) AS balance_after, UNNEST($19::bigint[]) AS
create_time_us, UNNEST($20::bytea[]) AS hash, UNNEST($21::bigint[]) AS effective_time_us) AS new),
new_commits AS (INSERT INTO commits (create_time_us, transaction_ids, other_events) SELECT
create_time_us, transaction_ids, NULLIF(other_events, '') FROM (SELECT UNNEST($22::bigint[]) AS
create_time_us, UNNEST($23::bytea[]) AS transaction_ids, UNNEST($24::text[]) AS other_events) AS
new) UPDATE accounts SET balance = new.balance, held = new.held, sequence = new.sequence, version =
new.version, last_hash = new.last_hash, update_time_us = new.update_time_us FROM (SELECT
UNNEST($25::text[]) AS account_id, UNNEST($26::numeric[]) AS balance, UNNEST($27::numeric[]) AS
held, UNNEST($28::bigint[]) AS sequence, UNNEST($29::bigint[]) AS version, UNNEST($30::bytea[]) AS
last_hash, UNNEST($31::bigint[]) AS update_time_us) AS new WHERE accounts.account_id = ANY
(ARRAY[new.account_id COLLATE "C"])

-- UPDATE_ACCOUNTS, postgres
WITH new_changes AS (INSERT INTO account_changes (account_id, version, kind, reason, caller,
attributes_before, attributes_after, create_time_us) SELECT account_id, version, kind, reason,
caller, attributes_before::jsonb, attributes_after::jsonb, create_time_us FROM (SELECT
UNNEST($1::text[]) AS account_id, UNNEST($2::bigint[]) AS version, UNNEST($3::text[]) AS kind,
UNNEST($4::text[]) AS reason, UNNEST($5::text[]) AS caller, UNNEST($6::text[]) AS attributes_before,
UNNEST($7::text[]) AS attributes_after, UNNEST($8::bigint[]) AS create_time_us) AS new) UPDATE
accounts SET balance = new.balance, held = new.held, sequence = new.sequence, version = new.version,
last_hash = new.last_hash, update_time_us = new.update_time_us, state = new.state, overdraft_limit =
new.overdraft_limit, unlimited_overdraft = new.unlimited_overdraft, below_limit = new.below_limit,
labels = new.labels::jsonb FROM (SELECT UNNEST($9::text[]) AS account_id, UNNEST($10::numeric[]) AS
balance, UNNEST($11::numeric[]) AS held, UNNEST($12::bigint[]) AS sequence, UNNEST($13::bigint[]) AS
version, UNNEST($14::bytea[]) AS last_hash, UNNEST($15::bigint[]) AS update_time_us,
UNNEST($16::text[]) AS state, UNNEST($17::numeric[]) AS overdraft_limit, UNNEST($18::boolean[]) AS
unlimited_overdraft, UNNEST($19::boolean[]) AS below_limit, UNNEST($20::text[]) AS labels) AS new
WHERE accounts.account_id = ANY (ARRAY[new.account_id COLLATE "C"])

-- INSERT_HOLDS, postgres
INSERT INTO holds (hold_id, account_key, amount, state, expire_time_us, captured_amount,
transaction_id, request_id, description, labels, create_time_us, update_time_us, caller, end_caller,
placed) SELECT hold_id, account_key, amount, state, NULLIF(expire_time_us, 0),
NULLIF(captured_amount, 0), NULLIF(transaction_id, '00000000-0000-0000-0000-000000000000'),
request_id, NULLIF(description, ''), NULLIF(labels, '')::jsonb, create_time_us, update_time_us,
caller, end_caller, NULLIF(placed, '')::jsonb FROM (SELECT UNNEST($1::text[]) AS hold_id,
UNNEST($2::bigint[]) AS account_key, UNNEST($3::numeric[]) AS amount, UNNEST($4::text[]) AS state,
UNNEST($5::bigint[]) AS expire_time_us, UNNEST($6::numeric[]) AS captured_amount, UNNEST($7::uuid[])
AS transaction_id, UNNEST($8::text[]) AS request_id, UNNEST($9::text[]) AS description,
UNNEST($10::text[]) AS labels, UNNEST($11::bigint[]) AS create_time_us, UNNEST($12::bigint[]) AS
update_time_us, UNNEST($13::text[]) AS caller, UNNEST($14::text[]) AS end_caller,
UNNEST($15::text[]) AS placed) AS new

-- UPDATE_HOLDS, postgres
UPDATE holds SET state = new.state, amount = new.amount, expire_time_us = NULLIF(new.expire_time_us,
0), placed = NULLIF(new.placed, '')::jsonb, captured_amount = NULLIF(new.captured_amount, 0),
transaction_id = NULLIF(new.transaction_id, '00000000-0000-0000-0000-000000000000'), update_time_us
= new.update_time_us, end_caller = new.end_caller FROM (SELECT UNNEST($1::bigint[]) AS account_key,
UNNEST($2::text[]) AS hold_id, UNNEST($3::text[]) AS state, UNNEST($4::numeric[]) AS amount,
UNNEST($5::bigint[]) AS expire_time_us, UNNEST($6::text[]) AS placed, UNNEST($7::numeric[]) AS
captured_amount, UNNEST($8::uuid[]) AS transaction_id, UNNEST($9::bigint[]) AS update_time_us,
UNNEST($10::text[]) AS end_caller) AS new WHERE holds.account_key = ANY (ARRAY[new.account_key]) AND
holds.hold_id >= new.hold_id COLLATE "C" AND holds.hold_id <= new.hold_id COLLATE "C"

-- NEW_ACCOUNTS, sqlite
INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, overdraft_limit,
unlimited_overdraft, below_limit, state, sequence, version, last_hash, labels, create_time_us,
update_time_us, caller, opening_attributes) VALUES (...) RETURNING account_id, account_key

-- NEW_REQUESTS, sqlite
INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, description,
labels, entry_keys, create_time_us, hold_id, reverses_transaction_id, details) VALUES (...)

-- NEW_ENTRIES, sqlite
INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after, create_time_us,
hash, effective_time_us) VALUES (...)

-- NEW_COMMITS, sqlite
INSERT INTO commits (create_time_us, transaction_ids, other_events) VALUES (...)

-- BALANCE_UPDATES, sqlite
UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, version =
new.column5, last_hash = new.column6, update_time_us = new.column7 FROM (VALUES (...)) AS new WHERE
accounts.account_id = new.column1

-- ACCOUNT_UPDATES, sqlite
UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, version =
new.column5, last_hash = new.column6, update_time_us = new.column7, state = new.column8,
overdraft_limit = new.column9, unlimited_overdraft = new.column10, below_limit = new.column11,
labels = new.column12 FROM (VALUES (...)) AS new WHERE accounts.account_id = new.column1

-- NEW_ACCOUNT_CHANGES, sqlite
INSERT INTO account_changes (account_id, version, kind, reason, caller, attributes_before,
attributes_after, create_time_us) VALUES (...)

-- NEW_HOLDS, sqlite
INSERT INTO holds (hold_id, account_key, amount, state, expire_time_us, captured_amount,
transaction_id, request_id, description, labels, create_time_us, update_time_us, caller, end_caller,
placed) VALUES (...)

-- CHANGED_HOLDS, sqlite
UPDATE holds SET state = new.column3, amount = new.column4, expire_time_us = new.column5, placed =
new.column6, captured_amount = new.column7, transaction_id = new.column8, update_time_us =
new.column9, end_caller = new.column10 FROM (VALUES (...)) AS new WHERE holds.account_key =
new.column1 AND holds.hold_id = new.column2

-- requests::RECORDS, postgres
SELECT clock.now_us, r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection,
r.description, r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id,
r.details FROM (SELECT CASE WHEN pg_current_xact_id() IS NOT NULL THEN CAST(extract(epoch FROM
clock_timestamp()) * 1000000 AS bigint) END AS now_us) clock LEFT JOIN (SELECT r.* FROM
UNNEST($1::text[], $2::text[]) AS key(caller, request_id) CROSS JOIN LATERAL (SELECT * FROM requests
r WHERE r.caller = key.caller COLLATE "C" AND r.request_id = key.request_id COLLATE "C" LIMIT 1) r)
r ON true

-- requests::RECORDS, sqlite
SELECT clock.now_us, r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection,
r.description, r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id,
r.details FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 AS now_us) clock LEFT JOIN
(SELECT r.* FROM json_each(?) key JOIN requests r ON r.caller = key.value->>0 AND r.request_id =
key.value->>1) r ON true

-- requests::BY_ID, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
UNNEST($1::uuid[]) AS name(transaction_id) CROSS JOIN LATERAL (SELECT * FROM requests r WHERE
r.transaction_id = name.transaction_id LIMIT 1) r

-- requests::BY_ID, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
json_each(?) name JOIN requests r ON r.transaction_id = unhex(name.value)

-- requests::REVERSALS, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
UNNEST($1::uuid[]) AS reversed(transaction_id) CROSS JOIN LATERAL (SELECT * FROM requests r WHERE
r.reverses_transaction_id = reversed.transaction_id ORDER BY
COALESCE((r.details->'reversed'->>'count')::bigint, 1) DESC LIMIT 1) r

-- requests::REVERSALS, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
json_each(?) reversed JOIN requests r ON r.transaction_id = (SELECT r.transaction_id FROM requests r
WHERE r.reverses_transaction_id = unhex(reversed.value) ORDER BY
COALESCE(r.details->'reversed'->>'count', 1) DESC LIMIT 1)

-- entries::BY_KEY, postgres
SELECT e.account_key, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us,
e.hash, e.effective_time_us, a.account_id, a.currency_code, a.currency_scale FROM
UNNEST($1::bigint[], $2::bigint[]) AS name(account_key, sequence) CROSS JOIN LATERAL (SELECT * FROM
entries e WHERE e.account_key = name.account_key AND e.sequence = name.sequence LIMIT 1) e CROSS
JOIN LATERAL (SELECT * FROM accounts a WHERE a.account_key = e.account_key LIMIT 1) a

-- entries::BY_KEY, sqlite
SELECT e.account_key, e.sequence, e.transaction_id, e.amount, e.balance_after, e.create_time_us,
e.hash, e.effective_time_us, a.account_id, a.currency_code, a.currency_scale FROM json_each(?) name
JOIN entries e ON e.account_key = name.value->>0 AND e.sequence = name.value->>1 JOIN accounts a ON
a.account_key = e.account_key

-- events::NEW_COMMITS, postgres
SELECT (SELECT create_time_us FROM commits WHERE number = $1) AS time_us, consecutive, (SELECT
create_time_us FROM commits WHERE number = consecutive) AS consecutive_time_us, last, (SELECT
create_time_us FROM commits WHERE number = last) AS last_time_us FROM (SELECT coalesce(max(number)
FILTER (WHERE number = $1 + position), $1) AS consecutive, coalesce(max(number), $1) AS last FROM
(SELECT number, row_number() OVER (ORDER BY number) AS position FROM commits WHERE number > $1 ORDER
BY number LIMIT 10000) new) found

-- events::NEW_COMMITS, sqlite
SELECT (SELECT create_time_us FROM commits WHERE number = $1) AS time_us, consecutive, (SELECT
create_time_us FROM commits WHERE number = consecutive) AS consecutive_time_us, last, (SELECT
create_time_us FROM commits WHERE number = last) AS last_time_us FROM (SELECT coalesce(max(number)
FILTER (WHERE number = $1 + position), $1) AS consecutive, coalesce(max(number), $1) AS last FROM
(SELECT number, row_number() OVER (ORDER BY number) AS position FROM commits WHERE number > $1 ORDER
BY number LIMIT 10000) new) found

-- events::LAST_COMMIT, postgres
SELECT number, create_time_us, transaction_ids, other_events FROM commits ORDER BY number DESC LIMIT
1

-- events::LAST_COMMIT, sqlite
SELECT number, create_time_us, transaction_ids, other_events FROM commits ORDER BY number DESC LIMIT
1

-- events::COMMITS_OF_PAGE, postgres
SELECT number, create_time_us, transaction_ids, other_events, (SELECT create_time_us FROM commits
WHERE number = $2) AS until_time_us FROM (SELECT c.*, sum(c.size) OVER (ORDER BY c.number) - c.size
AS size_before FROM (SELECT number, create_time_us, transaction_ids, other_events, CASE number WHEN
$1 THEN 0 ELSE octet_length(transaction_ids) + coalesce(octet_length(other_events), 0) END AS size
FROM commits WHERE number >= $1 AND number <= $2 ORDER BY number LIMIT 500 + 1) c) c WHERE
size_before < 500 * 16 ORDER BY number

-- events::COMMITS_OF_PAGE, sqlite
SELECT number, create_time_us, transaction_ids, other_events, (SELECT create_time_us FROM commits
WHERE number = $2) AS until_time_us FROM (SELECT c.*, sum(c.size) OVER (ORDER BY c.number) - c.size
AS size_before FROM (SELECT number, create_time_us, transaction_ids, other_events, CASE number WHEN
$1 THEN 0 ELSE octet_length(transaction_ids) + coalesce(octet_length(other_events), 0) END AS size
FROM commits WHERE number >= $1 AND number <= $2 ORDER BY number LIMIT 500 + 1) c) c WHERE
size_before < 500 * 16 ORDER BY number

-- events::CHANGES_BY_KEY, postgres
SELECT c.account_id, c.version, c.kind, c.reason, c.caller, c.attributes_before, c.attributes_after,
c.create_time_us, a.currency_code, a.currency_scale FROM UNNEST($1::text[], $2::bigint[]) AS
name(account_id, version) CROSS JOIN LATERAL (SELECT * FROM account_changes c WHERE c.account_id =
name.account_id COLLATE "C" AND c.version = name.version LIMIT 1) c CROSS JOIN LATERAL (SELECT
a.currency_code, a.currency_scale FROM accounts a WHERE a.account_id = c.account_id LIMIT 1) a

-- events::CHANGES_BY_KEY, sqlite
SELECT c.account_id, c.version, c.kind, c.reason, c.caller, c.attributes_before, c.attributes_after,
c.create_time_us, a.currency_code, a.currency_scale FROM json_each(?) name JOIN account_changes c ON
c.account_id = name.value->>0 AND c.version = name.value->>1 JOIN accounts a ON a.account_id =
c.account_id

-- holds::BY_KEY, postgres
SELECT clock.now_us, h.* FROM (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS
bigint) AS now_us) clock LEFT JOIN (SELECT h.hold_id, h.account_key, h.amount, h.state,
h.expire_time_us, h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels,
h.create_time_us, h.update_time_us, h.caller, h.end_caller, h.placed, a.account_id, a.currency_code,
a.currency_scale FROM UNNEST($1::text[]) AS name(hold_id) CROSS JOIN LATERAL (SELECT * FROM holds h
WHERE h.hold_id >= name.hold_id COLLATE "C" AND h.hold_id <= name.hold_id COLLATE "C" ORDER BY
h.hold_id LIMIT 1) h CROSS JOIN LATERAL (SELECT * FROM accounts a WHERE a.account_key =
h.account_key LIMIT 1) a UNION ALL SELECT h.hold_id, h.account_key, h.amount, h.state,
h.expire_time_us, h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels,
h.create_time_us, h.update_time_us, h.caller, h.end_caller, h.placed, a.account_id, a.currency_code,
a.currency_scale FROM UNNEST($2::bigint[]) AS held(account_key) CROSS JOIN LATERAL (SELECT * FROM
holds h WHERE h.account_key = held.account_key AND h.open_until_us <= CAST(extract(epoch FROM
statement_timestamp()) * 1000000 AS bigint) + 1000000 ORDER BY h.open_until_us LIMIT $3) h CROSS
JOIN LATERAL (SELECT * FROM accounts a WHERE a.account_key = h.account_key LIMIT 1) a ) h ON true

-- holds::BY_KEY, sqlite
SELECT clock.now_us, h.* FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 AS now_us)
clock LEFT JOIN (SELECT h.hold_id, h.account_key, h.amount, h.state, h.expire_time_us,
h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels, h.create_time_us,
h.update_time_us, h.caller, h.end_caller, h.placed, a.account_id, a.currency_code, a.currency_scale
FROM json_each(?) name JOIN holds h ON h.hold_id = name.value JOIN accounts a ON a.account_key =
h.account_key UNION ALL SELECT h.hold_id, h.account_key, h.amount, h.state, h.expire_time_us,
h.captured_amount, h.transaction_id, h.request_id, h.description, h.labels, h.create_time_us,
h.update_time_us, h.caller, h.end_caller, h.placed, a.account_id, a.currency_code, a.currency_scale
FROM json_each(?) held JOIN holds h ON h.hold_id IN (SELECT h.hold_id FROM holds h WHERE
h.account_key = held.value AND h.open_until_us <= CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000
+ 1000000 ORDER BY h.open_until_us LIMIT ?) JOIN accounts a ON a.account_key = h.account_key ) h ON
true

-- new_entries::NEW_ENTRIES, postgres
SELECT watched.position - 1 AS position, e.* FROM UNNEST($1::bigint[], $2::bigint[]) WITH ORDINALITY
AS watched(account_key, after_sequence, position) CROSS JOIN LATERAL ( SELECT account_key, sequence,
transaction_id, amount, balance_after, create_time_us, hash, effective_time_us FROM entries WHERE
account_key = watched.account_key AND sequence > watched.after_sequence ORDER BY sequence LIMIT $3)
e

-- new_entries::NEW_ENTRIES, sqlite
SELECT watched.key AS position, e.account_key, e.sequence, e.transaction_id, e.amount,
e.balance_after, e.create_time_us, e.hash, e.effective_time_us FROM json_each(?) watched CROSS JOIN
entries e WHERE e.account_key = watched.value->>0 AND e.sequence > watched.value->>1 AND e.sequence
<= (watched.value->>1) + ?

-- opening_attributes::FIRST_CHANGES, postgres
SELECT change.account_id, change.version, change.kind, change.reason, change.caller,
change.attributes_before, change.attributes_after, change.create_time_us FROM unnest($1::text[],
$2::bigint[]) AS wanted (account_id, version) CROSS JOIN LATERAL (SELECT * FROM account_changes c
WHERE c.account_id = wanted.account_id AND c.version > wanted.version ORDER BY c.version LIMIT 1) AS
change

-- opening_attributes::FIRST_CHANGES, sqlite
SELECT change.account_id, change.version, change.kind, change.reason, change.caller,
change.attributes_before, change.attributes_after, change.create_time_us FROM json_each(?) AS wanted
CROSS JOIN account_changes AS change WHERE change.account_id = wanted.value->>0 AND change.version =
(SELECT min(c.version) FROM account_changes c WHERE c.account_id = wanted.value->>0 AND c.version >
wanted.value->>1)

-- transactions::LIST, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
requests r WHERE r.transaction_id < $5 AND r.transaction_id >= $6 AND r.rejection IS NULL AND r.kind
IN ('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND (CAST($1 AS text) =
'' OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us < $3 AND (CAST($4
AS text) = '{}' OR coalesce(r.labels, '{}') @> CAST($4 AS jsonb)) ORDER BY r.transaction_id DESC
LIMIT $7

-- transactions::LIST, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
requests r WHERE r.transaction_id < $5 AND r.transaction_id >= $6 AND r.rejection IS NULL AND r.kind
IN ('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND (CAST($1 AS text) =
'' OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us < $3 AND (CAST($4
AS text) = '{}' OR NOT EXISTS (SELECT 1 FROM json_each($4) wanted WHERE NOT EXISTS (SELECT 1 FROM
json_each(coalesce(r.labels, '{}')) had WHERE had.key = wanted.key AND had.value = wanted.value)))
ORDER BY r.transaction_id DESC LIMIT $7

-- transactions::LIST_OF_ACCOUNT, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details,
e.sequence FROM entries e JOIN requests r ON r.transaction_id = e.transaction_id WHERE e.account_key
= $5 AND e.sequence < $6 AND e.sequence >= $7 AND NOT EXISTS (SELECT 1 FROM entries n WHERE
n.account_key = e.account_key AND n.sequence = e.sequence + 1 AND n.transaction_id =
e.transaction_id) AND r.rejection IS NULL AND r.kind IN ('deposit', 'withdrawal', 'transfer',
'posting', 'capture', 'reversal') AND (CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) AND
r.create_time_us >= $2 AND r.create_time_us < $3 AND (CAST($4 AS text) = '{}' OR coalesce(r.labels,
'{}') @> CAST($4 AS jsonb)) ORDER BY e.sequence DESC LIMIT $8

-- transactions::LIST_OF_ACCOUNT, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details,
e.sequence FROM entries e JOIN requests r ON r.transaction_id = e.transaction_id WHERE e.account_key
= $5 AND e.sequence < $6 AND e.sequence >= $7 AND NOT EXISTS (SELECT 1 FROM entries n WHERE
n.account_key = e.account_key AND n.sequence = e.sequence + 1 AND n.transaction_id =
e.transaction_id) AND r.rejection IS NULL AND r.kind IN ('deposit', 'withdrawal', 'transfer',
'posting', 'capture', 'reversal') AND (CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) AND
r.create_time_us >= $2 AND r.create_time_us < $3 AND (CAST($4 AS text) = '{}' OR NOT EXISTS (SELECT
1 FROM json_each($4) wanted WHERE NOT EXISTS (SELECT 1 FROM json_each(coalesce(r.labels, '{}')) had
WHERE had.key = wanted.key AND had.value = wanted.value))) ORDER BY e.sequence DESC LIMIT $8

-- effective_times::ASCENDING, postgres
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND sequence >= $2 AND
sequence < $3 AND effective_time_us IS NULL ORDER BY sequence LIMIT $9) undated UNION ALL SELECT
account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND effective_time_us IS
NOT NULL AND (effective_time_us, sequence) > ($4, $5) AND (effective_time_us, sequence) < ($6, $7)
AND effective_time_us <= $6 - CASE WHEN $7 > 0 THEN 0 ELSE 1 END AND sequence <= $8 ORDER BY
effective_time_us , sequence LIMIT $9) dated

-- effective_times::ASCENDING, sqlite
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND sequence >= $2 AND
sequence < $3 AND effective_time_us IS NULL ORDER BY sequence LIMIT $9) undated UNION ALL SELECT
account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND effective_time_us IS
NOT NULL AND (effective_time_us, sequence) > ($4, $5) AND (effective_time_us, sequence) < ($6, $7)
AND effective_time_us <= $6 - CASE WHEN $7 > 0 THEN 0 ELSE 1 END AND sequence <= $8 ORDER BY
effective_time_us , sequence LIMIT $9) dated

-- effective_times::DESCENDING, postgres
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND sequence >= $2 AND
sequence < $3 AND effective_time_us IS NULL ORDER BY sequence DESC LIMIT $9) undated UNION ALL
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND effective_time_us IS
NOT NULL AND (effective_time_us, sequence) > ($4, $5) AND (effective_time_us, sequence) < ($6, $7)
AND effective_time_us <= $6 - CASE WHEN $7 > 0 THEN 0 ELSE 1 END AND sequence <= $8 ORDER BY
effective_time_us DESC, sequence DESC LIMIT $9) dated

-- effective_times::DESCENDING, sqlite
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND sequence >= $2 AND
sequence < $3 AND effective_time_us IS NULL ORDER BY sequence DESC LIMIT $9) undated UNION ALL
SELECT account_key, sequence, transaction_id, amount, balance_after, create_time_us, hash,
effective_time_us FROM (SELECT account_key, sequence, transaction_id, amount, balance_after,
create_time_us, hash, effective_time_us FROM entries WHERE account_key = $1 AND effective_time_us IS
NOT NULL AND (effective_time_us, sequence) > ($4, $5) AND (effective_time_us, sequence) < ($6, $7)
AND effective_time_us <= $6 - CASE WHEN $7 > 0 THEN 0 ELSE 1 END AND sequence <= $8 ORDER BY
effective_time_us DESC, sequence DESC LIMIT $9) dated

-- effective_times::MATCHING, postgres
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
UNNEST($5::uuid[]) AS listed(transaction_id) CROSS JOIN LATERAL (SELECT * FROM requests r WHERE
r.transaction_id = listed.transaction_id LIMIT 1) r WHERE r.rejection IS NULL AND r.kind IN
('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND (CAST($1 AS text) = ''
OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us < $3 AND (CAST($4 AS
text) = '{}' OR coalesce(r.labels, '{}') @> CAST($4 AS jsonb))

-- effective_times::MATCHING, sqlite
SELECT r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, r.rejection, r.description,
r.labels, r.entry_keys, r.create_time_us, r.hold_id, r.reverses_transaction_id, r.details FROM
json_each($5) listed JOIN requests r ON r.transaction_id = unhex(listed.value) WHERE r.rejection IS
NULL AND r.kind IN ('deposit', 'withdrawal', 'transfer', 'posting', 'capture', 'reversal') AND
(CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) AND r.create_time_us >= $2 AND r.create_time_us
< $3 AND (CAST($4 AS text) = '{}' OR NOT EXISTS (SELECT 1 FROM json_each($4) wanted WHERE NOT EXISTS
(SELECT 1 FROM json_each(coalesce(r.labels, '{}')) had WHERE had.key = wanted.key AND had.value =
wanted.value)))

-- effective_times::BALANCE, postgres
SELECT count(*) FILTER (WHERE is_late OR effective_time_us <= $2) AS examined,
string_agg(amount::text, ' ') FILTER (WHERE effective_time_us <= $2) AS added,
string_agg(amount::text, ' ') FILTER (WHERE sequence <= $3) AS taken FROM (SELECT * FROM (SELECT
amount, sequence, effective_time_us, true AS is_late FROM entries WHERE account_key = $1 AND
effective_time_us > $2 ORDER BY effective_time_us LIMIT $5) late UNION ALL SELECT * FROM (SELECT
amount, sequence, effective_time_us, false AS is_late FROM entries WHERE account_key = $1 AND
effective_time_us IS NOT NULL AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5)
written_later) e

-- effective_times::BALANCE, sqlite
SELECT count(*) FILTER (WHERE is_late OR effective_time_us <= $2) AS examined, string_agg(amount, '
') FILTER (WHERE effective_time_us <= $2) AS added, string_agg(amount, ' ') FILTER (WHERE sequence
<= $3) AS taken FROM (SELECT * FROM (SELECT amount, sequence, effective_time_us, true AS is_late
FROM entries WHERE account_key = $1 AND effective_time_us > $2 ORDER BY effective_time_us LIMIT $5)
late UNION ALL SELECT * FROM (SELECT amount, sequence, effective_time_us, false AS is_late FROM
entries WHERE account_key = $1 AND effective_time_us IS NOT NULL AND sequence > $3 AND sequence <=
$4 ORDER BY sequence LIMIT $5) written_later) e
