-- json_patch leaves out what is null.
UPDATE accounts SET opening_attributes = (
    SELECT json_patch('{}', json_object(
        'overdraft_limit', iif(CAST(opening->>'overdraft_limit' AS REAL) = 0, NULL,
            opening->>'overdraft_limit'),
        'unlimited_overdraft', iif(opening->>'unlimited_overdraft', json('true'), NULL),
        'labels', json(NULLIF(opening->'labels', '{}'))))
    FROM (SELECT coalesce(
        (SELECT c.attributes_before FROM account_changes c
            WHERE c.account_id = accounts.account_id ORDER BY c.version LIMIT 1),
        json_object('overdraft_limit', overdraft_limit,
            'unlimited_overdraft', unlimited_overdraft, 'labels', json(labels))) AS opening))
WHERE opening_attributes IS NULL;
