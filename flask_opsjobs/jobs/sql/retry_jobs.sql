-- Makes jobs due now and allows at least one more attempt; earlier attempts stay. Clears the end, a request
-- to cancel, and a deadline that has passed, which would end the job again at once. Takes back the counted
-- end of a member of a batch, by an appended row with a negative number. A batch that has ended is reopened:
-- it ends once more, and a request to cancel it is over. The caller has locked the rows, and before them
-- their batches.
-- Rows: opsjobs, by origin.
-- Run by actions. Indexes: jobs_pkey, batches_pkey.
WITH ended AS MATERIALIZED (
    SELECT batch_id, state, ended_by FROM opsjobs.jobs
    WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[])
      AND batch_id IS NOT NULL AND ended_at IS NOT NULL
), taken_back AS (
    INSERT INTO opsjobs.batch_end_events (batch_id, kind, ended_by, number)
    SELECT batch_id, state, ended_by, -count(*) FROM ended GROUP BY batch_id, state, ended_by
), reopened AS (
    UPDATE opsjobs.batches SET state = 'running', ended_at = NULL, lost = 0,
        cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL
    WHERE id IN (SELECT batch_id FROM ended) AND ended_at IS NOT NULL
)
UPDATE opsjobs.jobs
SET state = 'available', due_at = %(now)s, max_attempts = greatest(max_attempts, attempt + 1),
    failed_deliveries = 0, first_handed_back_at = NULL,
    deadline_at = CASE WHEN deadline_at > %(now)s THEN deadline_at END, dispatched_at = NULL,
    ended_at = NULL, ended_by = NULL, ended_reason = NULL,
    cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL
WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[]) AND origin = 'opsjobs'
