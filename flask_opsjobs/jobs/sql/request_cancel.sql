-- Asks the workers of started and reserved jobs to stop them: each worker reads the request with its next
-- heartbeat. The caller has locked the rows.
-- Rows: opsjobs, by origin.
-- Run by actions. Index: jobs_pkey, or jobs_started.
UPDATE opsjobs.jobs
SET cancel_requested_at = %(now)s, cancel_requested_by = %(actor)s, cancel_reason = %(reason)s
WHERE id = ANY (%(ids)s::bigint[]) AND (state = 'started' OR reserved_by IS NOT NULL)
    AND cancel_requested_at IS NULL AND origin = 'opsjobs'
