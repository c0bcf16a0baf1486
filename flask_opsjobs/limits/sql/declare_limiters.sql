-- Records limiters as this code declares them. Returns the new and changed ones, each with its earlier
-- declaration. Writes the rows in the order of their names, so that two processes that start together cannot
-- deadlock. With the same code the second process changes nothing.
-- Run when a worker or the loops start, never at import. Index: limiters_pkey.
INSERT INTO opsjobs.limiters AS l (name, rate, per_seconds, burst, concurrency, partition_by,
    weight_by, when_full, declared_at, declared_by)
SELECT name, rate, per_seconds, burst, concurrency, partition_by, weight_by, when_full, %(now)s, %(process)s
FROM jsonb_to_recordset(%(limiters)s::jsonb) AS d(
    name text, rate float8, per_seconds float8, burst int, concurrency int,
    partition_by text, weight_by text, when_full text)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET rate = excluded.rate, per_seconds = excluded.per_seconds,
    burst = excluded.burst,
    concurrency = excluded.concurrency, partition_by = excluded.partition_by, weight_by = excluded.weight_by,
    when_full = excluded.when_full, declared_at = excluded.declared_at, declared_by = excluded.declared_by,
    changed_at = excluded.declared_at,
    previous = jsonb_build_object('rate', l.rate, 'per_seconds', l.per_seconds, 'burst', l.burst,
        'concurrency', l.concurrency, 'partition_by', l.partition_by, 'weight_by', l.weight_by,
        'when_full', l.when_full)
WHERE (l.rate, l.per_seconds, l.burst, l.concurrency, l.partition_by, l.weight_by, l.when_full)
    IS DISTINCT FROM
    (excluded.rate, excluded.per_seconds, excluded.burst, excluded.concurrency, excluded.partition_by,
     excluded.weight_by, excluded.when_full)
RETURNING l.name, l.previous
