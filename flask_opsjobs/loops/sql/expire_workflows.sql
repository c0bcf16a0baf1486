-- Cancels runs whose deadline has passed. Skips locked runs; a later pass tries again.
-- Run by the advance loop and by `perform_due`. Index: workflows_deadlines.
UPDATE opsjobs.workflows SET state = 'canceling', cancel_requested_at = %(now)s,
    cancel_requested_by = 'opsjobs: deadline', cancel_reason = 'the deadline of the run passed'
WHERE id IN (
    SELECT id FROM opsjobs.workflows
    WHERE deadline_at <= %(now)s AND deadline_at IS NOT NULL AND ended_at IS NULL AND state = 'running'
    ORDER BY id LIMIT 100 FOR NO KEY UPDATE SKIP LOCKED)
