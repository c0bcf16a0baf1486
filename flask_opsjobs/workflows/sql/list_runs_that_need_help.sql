-- Lists the runs that need an operator, at most %(most_runs)s of each kind: runs that cannot be advanced,
-- open waits for which a signal is ambiguous, waits that have been open since before %(since)s (among the
-- %(examined)s open waits of the oldest runs), and runs that failed since then. OFFSET 0 keeps the waits of a
-- signal from being sought among all open waits. Locks nothing.
-- Part of the statement that reads these runs, and of the badges. Indexes: workflows_with_trouble,
-- signals_by_outcome, steps_waits_left, steps_open_waits_of_run, workflows_to_retain.
(SELECT id AS run, 'trouble' AS why FROM opsjobs.workflows
 WHERE trouble IS NOT NULL ORDER BY id LIMIT %(most_runs)s)
UNION ALL
SELECT DISTINCT wait.workflow_id, 'ambiguous' FROM (
    SELECT name, key, run FROM opsjobs.signals
    WHERE outcome = 'ambiguous' ORDER BY outcome, id DESC LIMIT %(most_runs)s
) AS signal CROSS JOIN LATERAL (
    SELECT workflow_id FROM (
        SELECT * FROM opsjobs.steps s WHERE s.is_wait_left AND s.key = signal.key OFFSET 0) AS s
    WHERE s.opened_at IS NOT NULL
      AND signal.name = ANY (s.signals) AND (signal.run IS NULL OR s.workflow_id = signal.run)
    LIMIT %(most_runs)s
) AS wait
UNION ALL
SELECT DISTINCT workflow_id, 'overdue' FROM (
    SELECT workflow_id, opened_at FROM opsjobs.steps
    WHERE is_wait_left AND opened_at IS NOT NULL ORDER BY workflow_id LIMIT %(examined)s
) AS open WHERE opened_at < %(since)s::timestamptz
UNION ALL
(SELECT id, 'failed' FROM opsjobs.workflows
 WHERE state = 'failed' AND ended_at IS NOT NULL AND ended_at >= %(since)s::timestamptz
 ORDER BY state, ended_at DESC LIMIT %(most_runs)s)
