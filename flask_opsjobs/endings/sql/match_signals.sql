-- Finds the early signals for open waits of a run, with the number of all open waits for each. A wait that
-- opened in this moment (%(now)s) takes its oldest signal, whatever other waits are open.
-- A wait that has ended, and has not settled yet, is not open.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: steps_open_waits_of_run, signals_to_match, steps_waits_left, jobs_pkey.
SELECT g.id AS signal, s.job_id AS wait, s.opened_at = %(now)s AS is_new, (
    SELECT count(*) FROM opsjobs.steps o JOIN opsjobs.jobs oj ON oj.id = o.job_id AND oj.state = 'deferred'
    WHERE o.is_wait_left AND o.opened_at IS NOT NULL AND o.key = g.key
      AND g.name = ANY (o.signals) AND (g.run IS NULL OR g.run = o.workflow_id)) AS open_waits
FROM opsjobs.steps s
JOIN opsjobs.jobs j ON j.id = s.job_id AND j.state = 'deferred'
JOIN opsjobs.signals g ON g.name = ANY (s.signals) AND g.key = s.key AND g.outcome = 'early'
    AND (g.run IS NULL OR g.run = s.workflow_id)
WHERE s.workflow_id = %(id)s AND s.is_wait_left AND s.opened_at IS NOT NULL
ORDER BY g.id, s.job_id LIMIT %(limit)s
