-- Makes jobs due now and allows at least one more attempt; earlier attempts stay. Clears the end, a request
-- to cancel, and a deadline that has passed, which would end the job again at once. The caller has locked the
-- rows.
-- Run by actions. Index: jobs_pkey.
UPDATE opsjobs.jobs
SET state = 'available', due_at = %(now)s, max_attempts = greatest(max_attempts, attempt + 1),
    failed_deliveries = 0, first_handed_back_at = NULL,
    deadline_at = CASE WHEN deadline_at > %(now)s THEN deadline_at END, dispatched_at = NULL,
    ended_at = NULL, ended_by = NULL, ended_reason = NULL,
    cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL
WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[])
