-- Lists the actors of all decisions, at most %(limit)s, in order. Returns one text column.
-- A loose index scan: one probe per actor, whatever the number of events. Locks nothing.
-- Run by audit/queries.py for a select box. Indexes: audit_by_actor, audit_head_pkey.
WITH RECURSIVE chain (last) AS (
    SELECT coalesce((SELECT sequence FROM opsjobs.audit_head WHERE id = 1), 9223372036854775807)
),
names (name) AS (
    (SELECT actor FROM opsjobs.audit_events
        WHERE sequence + 0 BETWEEN 1 AND (SELECT last FROM chain) ORDER BY actor LIMIT 1)
    UNION ALL
    SELECT (SELECT actor FROM opsjobs.audit_events
        WHERE actor > names.name AND sequence + 0 BETWEEN 1 AND (SELECT last FROM chain)
        ORDER BY actor LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
