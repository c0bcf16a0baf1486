-- Finds jobs as steps of their runs; no row when the run is gone. Locks nothing.
-- Run by explanations. Indexes: steps_pkey, workflows_pkey.
SELECT s.job_id, s.workflow_id, s.name, s.kind, s.pending, s.released_at, s.opened_at, s.expanded_at,
    s.signals, s.key, w.state, w.trouble, w.cancel_requested_at, w.cancel_requested_by, w.cancel_reason
FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id
WHERE s.job_id = ANY (%(ids)s::bigint[])
