-- Makes late signals early again when a wait for them is left after all, because an operator reopened it or
-- because its run was started at the same moment. Only a signal that came after the run was started: an older
-- one may be for something else. It is ambiguous when waits of several runs could have taken it. Looks at the
-- newest %(most)s late signals since %(since)s. Skips locked signals: a later pass of the advance loop takes
-- them.
-- Rows: opsjobs, by their runs.
-- Run by actions that reopen steps, and by the advance loop. Indexes: signals_by_outcome, signals_pkey,
-- steps_waits_left, steps_waits, workflows_pkey, jobs_pkey.
WITH late AS MATERIALIZED (
    SELECT id, name, key, run, at FROM (
        SELECT id, name, key, run, at FROM opsjobs.signals WHERE outcome BETWEEN 'late' AND 'late'
        ORDER BY outcome DESC, id DESC LIMIT %(most)s) AS newest
    WHERE at > %(since)s
), awaited AS MATERIALIZED (
    SELECT DISTINCT l.id, l.name, l.key, l.run, l.at
    FROM late l
    JOIN opsjobs.steps s ON s.is_wait_left AND s.key = l.key AND l.name = ANY (s.signals)
        AND (l.run IS NULL OR l.run = s.workflow_id)
    JOIN opsjobs.workflows w ON w.id = s.workflow_id AND w.created_at <= l.at
    JOIN opsjobs.jobs j ON j.id = s.job_id AND j.state = 'deferred'
), locked AS MATERIALIZED (
    SELECT id FROM opsjobs.signals WHERE id IN (SELECT id FROM awaited) AND outcome = 'late'
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE opsjobs.signals g SET outcome = CASE WHEN a.run IS NULL AND (
        SELECT count(DISTINCT s.workflow_id) FROM opsjobs.steps s
        JOIN opsjobs.workflows w ON w.id = s.workflow_id AND w.created_at <= a.at
        WHERE s.kind = 'wait' AND s.key = a.key AND a.name = ANY (s.signals)
          AND s.settled IS DISTINCT FROM 'finished') > 1
    THEN 'ambiguous' ELSE 'early' END
FROM locked l JOIN awaited a ON a.id = l.id WHERE g.id = l.id
