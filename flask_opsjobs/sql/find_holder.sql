-- The executor %(id)s as `why` shows who has a started job; `is_alive` as listeners.sql says it. Locks nothing.
-- Run by explain/queries.py. Index: executors_pkey.
SELECT e.id, e.name, e.kind, e.beat_at, e.holding, l.id IS NOT NULL AS is_alive
FROM opsjobs.executors e
LEFT JOIN {listeners.sql} AS l ON l.id = e.id
WHERE e.id = %(id)s
