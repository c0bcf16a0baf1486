-- Finds runs with a wait that has been open for a day without a time-out, among the 5,000 open waits of the
-- oldest runs; and runs with an open wait for which a signal came that others could take too. OFFSET 0 keeps
-- the waits of a signal from being sought among all open waits.
-- Run by the loop detect. Indexes: steps_open_waits_of_run, signals_by_outcome, steps_waits_left,
-- workflows_pkey.
SELECT w.id, w.name, found.step, found.opened_at, found.signal
FROM (
    SELECT DISTINCT ON (workflow_id) workflow_id, step, opened_at, signal FROM (
        SELECT workflow_id, name AS step, opened_at, NULL::bigint AS signal FROM (
            SELECT workflow_id, name, opened_at, timeout_seconds FROM opsjobs.steps
            WHERE is_wait_left AND opened_at IS NOT NULL ORDER BY workflow_id LIMIT 5000
        ) AS open
        WHERE opened_at < %(now)s::timestamptz - interval '1 day' AND timeout_seconds IS NULL
        UNION ALL
        SELECT wait.workflow_id, wait.step, wait.opened_at, signal.id FROM (
            SELECT id, name, key, run FROM opsjobs.signals
            WHERE outcome = 'ambiguous' ORDER BY outcome, id DESC LIMIT 100
        ) AS signal CROSS JOIN LATERAL (
            SELECT workflow_id, name AS step, opened_at FROM (
                SELECT * FROM opsjobs.steps s WHERE s.is_wait_left AND s.key = signal.key OFFSET 0) AS s
            WHERE s.opened_at IS NOT NULL AND signal.name = ANY (s.signals)
                AND (signal.run IS NULL OR s.workflow_id = signal.run)
            LIMIT 100
        ) AS wait
    ) AS every ORDER BY workflow_id, signal NULLS LAST, opened_at
) AS found
JOIN opsjobs.workflows w ON w.id = found.workflow_id
ORDER BY w.id
LIMIT %(limit)s
