-- Makes the oldest waiting job of each entry available, when no other unfinished job of the entry is left.
-- Returns lanes. The caller holds the entries, so when two jobs end at the same time one transaction sees the
-- other. A locked job is skipped: a transaction that cancels it ends it, and the next pass of the cron loop
-- finds the others.
-- Rows: opsjobs, by their cron entries.
-- Run by endings and by the cron loop. Index: jobs_of_cron.
WITH first AS MATERIALIZED (
    SELECT min(j.id) AS id FROM opsjobs.jobs j
    WHERE j.cron_entry = ANY (%(names)s::text[]) AND j.ended_at IS NULL
    GROUP BY j.cron_entry HAVING every(j.state = 'deferred')
), free AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs j JOIN first USING (id)
    WHERE j.state = 'deferred'
    ORDER BY id FOR UPDATE OF j SKIP LOCKED
)
UPDATE opsjobs.jobs j SET state = 'available', due_at = greatest(j.due_at, %(now)s)
FROM free WHERE j.id = free.id
RETURNING j.lane, j.queue
