-- Cancels runs: `advance` then ends the steps that wait, and has those stopped that run. The caller holds the
-- runs' locks.
-- Run by actions. Index: workflows_pkey.
UPDATE opsjobs.workflows SET state = 'canceling', cancel_requested_at = %(now)s,
    cancel_requested_by = %(actor)s, cancel_reason = %(reason)s
WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[])
