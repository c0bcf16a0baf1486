-- Lists runs that can be advanced: steps of theirs ended, wait for nothing any more, or must be stopped.
-- Locks nothing.
-- Run by the advance loop and for a host's tests. Indexes: workflow_end_events_by_run, steps_overlooked,
-- workflows_by_state.
(SELECT DISTINCT workflow_id FROM opsjobs.workflow_end_events LIMIT %(limit)s)
UNION
(SELECT DISTINCT workflow_id FROM opsjobs.steps
    WHERE pending = 0 AND released_at IS NULL AND settled IS NULL LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE state = 'canceling' LIMIT %(limit)s)
LIMIT %(limit)s
