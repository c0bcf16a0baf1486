-- Gives waiting jobs another due time. A job that is due then is available at once, any other is scheduled.
-- A worker that takes the delivery of a queued job refuses it, since the job is no longer queued. A
-- reserved job is left to its worker. The caller has locked the rows.
-- Rows: opsjobs, by origin.
-- Run by actions. Index: jobs_pkey.
UPDATE opsjobs.jobs
SET due_at = %(due_at)s::timestamptz, dispatched_at = NULL,
    state = CASE WHEN %(due_at)s::timestamptz <= %(now)s THEN 'available' ELSE 'scheduled' END
WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[]) AND reserved_by IS NULL
    AND origin = 'opsjobs'
