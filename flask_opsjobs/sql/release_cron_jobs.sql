-- Makes jobs available that waited behind others of their entries, when none of those is left. Returns their lines.
-- The caller holds the entries, so of two that end at once one sees the other. A job that somebody else works on is left:
-- who cancels it ends it, and the sweep of the cron loop finds the rest.
-- Run by endings and by the cron loop. Index: jobs_of_cron.
WITH free AS MATERIALIZED (
    SELECT j.id FROM opsjobs.jobs j
    WHERE j.cron_entry = ANY (%(names)s::text[]) AND j.ended_at IS NULL AND j.state = 'deferred'
      AND NOT EXISTS (
        SELECT FROM opsjobs.jobs o
        WHERE o.cron_entry = j.cron_entry AND o.ended_at IS NULL AND o.state <> 'deferred')
    ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
)
UPDATE opsjobs.jobs j SET state = 'available', due_at = greatest(j.due_at, %(now)s)
FROM free WHERE j.id = free.id
RETURNING j.line, j.queue
