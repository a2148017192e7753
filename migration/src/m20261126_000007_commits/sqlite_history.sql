-- step: makes commits of all changes
INSERT INTO commits (create_time_us, transaction_ids, other_events)
    SELECT time_us, ids,
        CASE WHEN other IS NOT NULL THEN json_array(json_array(0, json(other))) END
    FROM (
        SELECT create_time_us AS time_us, 2 AS place,
            CAST(substr(entry_keys, instr(entry_keys, ':') + 1) AS INTEGER) AS sequence,
            transaction_id AS ids, NULL AS other
        FROM requests WHERE rejection IS NULL
        UNION ALL
        SELECT create_time_us, 0, 0, x'', json_object('account_opened', account_id)
        FROM accounts
        UNION ALL
        SELECT update_time_us, 1, 0, x'', json_object('hold_expired', hold_id)
        FROM holds WHERE state = 'expired'
        UNION ALL
        SELECT create_time_us, 3, 0, x'', json_object('account_changed', json_array(account_id, version))
        FROM account_changes
    ) events
    ORDER BY time_us, place, sequence, ids, other;
