CREATE TEMPORARY TABLE former_events AS
    SELECT events.*, count(*) OVER (PARTITION BY time_us) AS event_count,
        row_number() OVER (ORDER BY time_us, part, ids, other COLLATE "C") AS place
    FROM (
        SELECT create_time_us AS time_us, 2 AS part, uuid_send(transaction_id) AS ids, NULL AS other,
            transaction_id, hold_id, NULL::bigint AS account_key, NULL::bigint AS version
        FROM requests WHERE rejection IS NULL
        UNION ALL
        SELECT create_time_us, 0, '', '[[0,{"account_opened":' || to_json(account_id)::text || '}]]',
            NULL, NULL, account_key, NULL
        FROM accounts
        UNION ALL
        SELECT update_time_us, 1, '', '[[0,{"hold_expired":' || to_json(hold_id)::text || '}]]',
            NULL, NULL, account_key, NULL
        FROM holds WHERE state = 'expired'
        UNION ALL
        SELECT c.create_time_us, 3, '',
            '[[0,{"account_changed":[' || to_json(c.account_id)::text || ',' || c.version || ']}]]',
            NULL, NULL, a.account_key, c.version
        FROM account_changes c LEFT JOIN accounts a ON a.account_id = c.account_id
    ) events;
CREATE TEMPORARY TABLE former_touches AS
    SELECT time_us, place, account_key, sequence, version, next_version,
        row_number() OVER (ORDER BY place, account_key) AS position
    FROM (
        SELECT time_us, event_count, place, account_key, min(sequence) AS sequence, max(version) AS version,
            rank() OVER (PARTITION BY account_key ORDER BY time_us) AS next_version
        FROM (
            SELECT time_us, event_count, place, account_key, NULL::bigint AS sequence, version
            FROM former_events WHERE account_key IS NOT NULL
            UNION ALL
            SELECT f.time_us, f.event_count, f.place, e.account_key, e.sequence, NULL
            FROM former_events f JOIN entries e ON e.transaction_id = f.transaction_id
            UNION ALL
            SELECT f.time_us, f.event_count, f.place, h.account_key, NULL, NULL
            FROM former_events f JOIN holds h ON h.hold_id = f.hold_id
        ) touches
        GROUP BY time_us, event_count, place, account_key
    ) ranked
    WHERE event_count > 1;
CREATE INDEX former_touches_positions ON former_touches (position);
CREATE TEMPORARY TABLE former_moves (place bigint NOT NULL, new_place bigint NOT NULL);
