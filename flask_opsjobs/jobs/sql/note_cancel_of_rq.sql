-- Notes on adopted jobs who asked RQ to cancel them, and why. Their state stays: RQ moves them,
-- and the adopting loop sees it. The caller has locked the rows.
-- Rows: rq.
-- Run by actions. Index: jobs_pkey.
UPDATE opsjobs.jobs
SET cancel_requested_at = %(now)s, cancel_requested_by = %(actor)s, cancel_reason = %(reason)s
WHERE id = ANY (%(ids)s::bigint[]) AND origin = 'rq' AND ended_at IS NULL
