-- Finds the oldest active incident of some classes, from which new ones of other classes follow.
-- OFFSET 0 keeps Postgres from reading all incidents in the order of their begin.
-- Run by a detecting pass that opens incidents. Index: incidents_active.
SELECT id FROM (
    SELECT id, opened_at FROM opsjobs.incidents
    WHERE class = ANY (%(classes)s::text[]) AND state <> 'resolved' OFFSET 0
) AS active
ORDER BY opened_at, id LIMIT 1
