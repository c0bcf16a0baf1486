-- Everything that was ever decided, at most %(limit)s, in order. Returns one text column.
-- A loose scan: one probe per name, whatever the number of events; locks nothing.
-- Run by audit/queries.py for a choice. Index: audit_by_action.
WITH RECURSIVE names (name) AS (
    (SELECT action FROM opsjobs.audit_events ORDER BY action LIMIT 1)
    UNION ALL
    SELECT (SELECT action FROM opsjobs.audit_events WHERE action > names.name ORDER BY action LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
