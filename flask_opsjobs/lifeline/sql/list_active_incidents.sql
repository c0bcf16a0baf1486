-- Lists the active incidents of %(classes)s, the oldest first, at most %(limit)s: (id, class, facts).
-- OFFSET 0 keeps Postgres from reading all incidents in the order of their begin. Locks nothing.
-- Run by an operator's action, to say which incidents it answers. Index: incidents_active.
SELECT id, class, facts FROM (
    SELECT id, class, facts, opened_at FROM opsjobs.incidents
    WHERE class = ANY (%(classes)s::text[]) AND state <> 'resolved' OFFSET 0
) AS active
ORDER BY opened_at, id LIMIT %(limit)s
