-- step: makes commits of all changes
INSERT INTO commits (create_time_us, transaction_ids, other_events)
    SELECT time_us, ids, '[[0,{' || other || '}]]'
    FROM (
        SELECT create_time_us AS time_us, 2 AS place,
            NULLIF(split_part(split_part(entry_keys, ' ', 1), ':', 2), '')::bigint AS sequence,
            uuid_send(transaction_id) AS ids, NULL AS other
        FROM requests WHERE rejection IS NULL
        UNION ALL
        SELECT create_time_us, 0, NULL, '', '"account_opened":' || to_json(account_id)::text
        FROM accounts
        UNION ALL
        SELECT update_time_us, 1, NULL, '', '"hold_expired":' || to_json(hold_id)::text
        FROM holds WHERE state = 'expired'
        UNION ALL
        SELECT create_time_us, 3, NULL, '',
            '"account_changed":[' || to_json(account_id)::text || ',' || version || ']'
        FROM account_changes
    ) events
    ORDER BY time_us, place, sequence NULLS FIRST, ids, other;
