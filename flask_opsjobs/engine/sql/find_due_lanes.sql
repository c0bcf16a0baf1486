-- Finds the lanes that have jobs due now, each once, with their queue and what its first job weighs in its limit (NULL:
-- it has none). The lane whose first job comes first stands first. Of one queue, or of all when %(queue)s is NULL.
-- Jumps from lane to lane along the index instead of reading every due job: a full lane costs one jump, whatever waits.
-- Run by the dispatch loop. Index: jobs_due.
WITH RECURSIVE found AS (
    (SELECT lane, queue, weight, priority, due_at, id FROM opsjobs.jobs
     WHERE state = 'available' ORDER BY lane, priority, due_at, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM found CROSS JOIN LATERAL (
        SELECT lane, queue, weight, priority, due_at, id FROM opsjobs.jobs
        WHERE state = 'available' AND lane > found.lane ORDER BY lane, priority, due_at, id LIMIT 1) AS next
)
SELECT lane, queue, weight FROM found
WHERE %(queue)s::text IS NULL OR queue = %(queue)s
ORDER BY priority, due_at, id
