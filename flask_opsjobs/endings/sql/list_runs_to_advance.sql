-- Lists runs that can be advanced, at most %(limit)s after %(after)s, in id order: steps of theirs ended,
-- wait for nothing any more, or must be stopped, a signal came for an open wait, or they could not be
-- advanced before. Locks nothing.
-- Each step of a recursion reads the next run from its index, because a run may have 50,000 rows there.
-- Signals with and without a run are joined apart, so that each join compares all that it can: many waits and
-- signals may have no key.
-- Run by the advance loop and for a host's tests. Indexes: workflow_end_events_by_run, steps_overlooked,
-- workflows_by_state, workflows_with_trouble, signals_to_match, steps_waits_left.
WITH RECURSIVE ended (run) AS (
    SELECT %(after)s::bigint
    UNION ALL
    SELECT (SELECT workflow_id FROM opsjobs.workflow_end_events
        WHERE workflow_id > e.run ORDER BY workflow_id LIMIT 1)
    FROM ended e WHERE e.run IS NOT NULL
), to_release (run) AS (
    SELECT %(after)s::bigint
    UNION ALL
    SELECT (SELECT workflow_id FROM opsjobs.steps
        WHERE is_overlooked AND workflow_id > o.run
        ORDER BY workflow_id LIMIT 1)
    FROM to_release o WHERE o.run IS NOT NULL
), wait AS (
    SELECT s.workflow_id AS run, s.key, u.name
    FROM opsjobs.steps s CROSS JOIN LATERAL unnest(s.signals) AS u(name)
    WHERE s.is_wait_left AND s.opened_at IS NOT NULL AND s.workflow_id > %(after)s
), signaled AS MATERIALIZED (
    SELECT w.run FROM wait w JOIN opsjobs.signals g ON g.name = w.name AND g.key = w.key
    WHERE g.outcome = 'early' AND g.run IS NULL
    UNION
    SELECT w.run FROM wait w JOIN opsjobs.signals g ON g.run = w.run AND g.name = w.name AND g.key = w.key
    WHERE g.outcome = 'early'
)
(SELECT run FROM ended WHERE run > %(after)s LIMIT %(limit)s)
UNION
(SELECT run FROM to_release WHERE run > %(after)s LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE state = 'canceling' AND id > %(after)s ORDER BY id LIMIT %(limit)s)
UNION
(SELECT id FROM opsjobs.workflows WHERE trouble IS NOT NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s)
UNION
(SELECT run FROM signaled ORDER BY run LIMIT %(limit)s)
ORDER BY run LIMIT %(limit)s
