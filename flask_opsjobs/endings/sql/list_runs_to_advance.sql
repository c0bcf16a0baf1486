-- Lists runs that can be advanced, at most %(limit)s after %(after)s, in id order: steps of theirs ended,
-- wait for nothing any more, or must be stopped, a signal came for an open wait, or they could not be
-- advanced before. Locks nothing.
-- Run by the advance loop and for a host's tests. Indexes: workflow_end_events_by_run, steps_overlooked,
-- workflows_by_state, workflows_with_trouble, signals_to_match, steps_waits_left.
(SELECT DISTINCT workflow_id AS run FROM opsjobs.workflow_end_events
    WHERE workflow_id > %(after)s ORDER BY workflow_id LIMIT %(limit)s)
UNION
(SELECT DISTINCT workflow_id FROM opsjobs.steps
    WHERE pending = 0 AND released_at IS NULL AND settled IS NULL AND workflow_id > %(after)s
    ORDER BY workflow_id LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE state = 'canceling' AND id > %(after)s ORDER BY id LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE trouble IS NOT NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s)
UNION
(SELECT DISTINCT s.workflow_id FROM opsjobs.signals g
    JOIN opsjobs.steps s ON s.kind = 'wait' AND s.settled IS NULL AND s.opened_at IS NOT NULL
        AND s.key = g.key AND g.name = ANY (s.signals) AND (g.run IS NULL OR g.run = s.workflow_id)
    WHERE g.outcome = 'early' AND s.workflow_id > %(after)s ORDER BY s.workflow_id LIMIT %(limit)s)
ORDER BY run LIMIT %(limit)s
