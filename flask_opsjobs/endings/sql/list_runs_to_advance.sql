-- Lists runs that can be advanced: steps of theirs ended, wait for nothing any more, or must be stopped, or a
-- signal came for an open wait.
-- Locks nothing.
-- Run by the advance loop and for a host's tests. Indexes: workflow_end_events_by_run, steps_overlooked,
-- workflows_by_state, signals_to_match, steps_waits_left.
(SELECT DISTINCT workflow_id FROM opsjobs.workflow_end_events LIMIT %(limit)s)
UNION
(SELECT DISTINCT workflow_id FROM opsjobs.steps
    WHERE pending = 0 AND released_at IS NULL AND settled IS NULL LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE state = 'canceling' LIMIT %(limit)s)
UNION
(SELECT DISTINCT s.workflow_id FROM opsjobs.signals g
    JOIN opsjobs.steps s ON s.kind = 'wait' AND s.settled IS NULL AND s.opened_at IS NOT NULL
        AND s.key = g.key AND g.name = ANY (s.signals) AND (g.run IS NULL OR g.run = s.workflow_id)
    WHERE g.outcome = 'early' LIMIT %(limit)s)
LIMIT %(limit)s
