-- Forgets on adopted jobs that RQ was asked to cancel them: RQ is asked for something else now.
-- The caller has locked the rows.
-- Rows: rq.
-- Run by actions. Index: jobs_pkey.
UPDATE opsjobs.jobs
SET cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL
WHERE id = ANY (%(ids)s::bigint[]) AND origin = 'rq' AND cancel_requested_at IS NOT NULL
