CREATE TEMPORARY TABLE former_events AS
    SELECT r.create_time_us AS time_us, 2 AS part, r.transaction_id AS transaction_id, NULL AS other,
        entry_keys, h.account_key, NULL AS version
    FROM requests r LEFT JOIN holds h ON h.hold_id = r.hold_id WHERE rejection IS NULL
    UNION ALL
    SELECT create_time_us, 0, NULL, json_object('account_opened', account_id),
        NULL, account_key, NULL
    FROM accounts
    UNION ALL
    SELECT update_time_us, 1, NULL, json_object('hold_expired', hold_id),
        NULL, account_key, NULL
    FROM holds WHERE state = 'expired'
    UNION ALL
    SELECT c.create_time_us, 3, NULL, json_object('account_changed', json_array(c.account_id, c.version)),
        NULL, a.account_key, c.version
    FROM account_changes c LEFT JOIN accounts a ON a.account_id = c.account_id
    ORDER BY time_us, part, transaction_id, other;
