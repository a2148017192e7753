UPDATE accounts a SET opening_attributes = (
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'overdraft_limit', NULLIF((opening->>'overdraft_limit')::numeric, 0)::text,
        'unlimited_overdraft', NULLIF((opening->>'unlimited_overdraft')::boolean, false),
        'labels', NULLIF(opening->'labels', '{}')))
    FROM (SELECT coalesce(
        (SELECT c.attributes_before FROM account_changes c
            WHERE c.account_id = a.account_id ORDER BY c.version LIMIT 1),
        jsonb_build_object('overdraft_limit', a.overdraft_limit,
            'unlimited_overdraft', a.unlimited_overdraft, 'labels', a.labels)) AS opening) first)
WHERE opening_attributes IS NULL;
