-- Finds the oldest incident that keeps an operation from going on: a Redis that does not answer, or with
-- %(makes_due)s a critical one of this queue. Locks nothing.
-- Run by the loop operate. Index: incidents_active.
SELECT id, class FROM opsjobs.incidents
WHERE state <> 'resolved' AND (class = 'redis_away'
    OR (%(makes_due)s AND severity = 'critical' AND facts ->> 'queue' = %(queue)s))
ORDER BY class <> 'redis_away', id LIMIT 1
