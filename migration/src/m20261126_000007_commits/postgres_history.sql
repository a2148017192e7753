DECLARE former_events NO SCROLL CURSOR FOR
    SELECT * FROM (
        SELECT r.create_time_us AS time_us, 2 AS part, uuid_send(r.transaction_id) AS transaction_id,
            NULL AS other, entry_keys, h.account_key, NULL::bigint AS version
        FROM requests r LEFT JOIN holds h ON h.hold_id = r.hold_id WHERE rejection IS NULL
        UNION ALL
        SELECT create_time_us, 0, NULL, '{"account_opened":' || to_json(account_id)::text || '}',
            NULL, account_key, NULL
        FROM accounts
        UNION ALL
        SELECT update_time_us, 1, NULL, '{"hold_expired":' || to_json(hold_id)::text || '}',
            NULL, account_key, NULL
        FROM holds WHERE state = 'expired'
        UNION ALL
        SELECT c.create_time_us, 3, NULL,
            '{"account_changed":[' || to_json(c.account_id)::text || ',' || c.version || ']}',
            NULL, a.account_key, c.version
        FROM account_changes c LEFT JOIN accounts a ON a.account_id = c.account_id
    ) events
    ORDER BY time_us, part, transaction_id, other COLLATE "C";
