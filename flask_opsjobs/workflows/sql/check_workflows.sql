-- Finds what contradicts the invariants of runs and callbacks; no row when everything is well. Meant for a
-- moment in which no process advances: a run that is being advanced right now may be listed.
-- Rows: opsjobs, by their runs.
-- Run by the doctor and by tests, read-only. Indexes: steps_name_key, edges_by_target, jobs_pkey.
WITH chosen AS MATERIALIZED (
    SELECT * FROM opsjobs.workflows WHERE %(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[])
), step AS MATERIALIZED (
    SELECT s.*, j.state, w.state AS run_state FROM chosen w JOIN opsjobs.steps s ON s.workflow_id = w.id
    LEFT JOIN opsjobs.jobs j ON j.id = s.job_id
), event AS MATERIALIZED (
    SELECT w.id AS workflow_id, unnest(e.job_ids) AS job_id
    FROM chosen w JOIN opsjobs.workflow_end_events e ON e.workflow_id = w.id
), holding AS MATERIALIZED (
    SELECT e.to_id, count(*) AS number FROM step t JOIN opsjobs.edges e ON e.to_id = t.job_id
    LEFT JOIN opsjobs.steps f ON f.job_id = e.from_id
    WHERE f.settled IS NULL OR f.passed_to < e.to_id
        OR (f.settled <> 'finished' AND e.on_failure = 'cancel')
    GROUP BY e.to_id
)
SELECT 'pending' AS code, s.workflow_id AS run, s.name AS step,
    'pending is ' || s.pending || ', but ' || coalesce(h.number, 0) || ' edges keep it waiting' AS says
FROM step s LEFT JOIN holding h ON h.to_id = s.job_id
WHERE s.settled IS NULL AND s.released_at IS NULL AND s.pending <> coalesce(h.number, 0)
UNION ALL
SELECT 'settled', workflow_id, name, 'it settled as ' || settled || ', but its job is ' || state
FROM step WHERE settled <> state
UNION ALL
SELECT 'not_settled', s.workflow_id, s.name,
    'its job is ' || s.state || ', but no end event is left to settle it'
FROM step s WHERE s.settled IS NULL AND s.state IN ('finished', 'failed', 'canceled')
    AND NOT EXISTS (SELECT FROM event e WHERE e.workflow_id = s.workflow_id AND e.job_id = s.job_id)
UNION ALL
SELECT 'not_passed_on', s.workflow_id, s.name,
    'its end was not passed on to all steps behind it, but no end event is left to do so'
FROM step s WHERE s.passed_to IS NOT NULL
    AND NOT EXISTS (SELECT FROM event e WHERE e.workflow_id = s.workflow_id AND e.job_id = s.job_id)
UNION ALL
SELECT 'counts', w.id, NULL, 'its row counts ' || w.steps || ' steps, ' || w.finished || ' finished, '
    || w.failed || ' failed, ' || w.canceled || ' canceled; its steps are ' || n.steps || ', ' || n.finished
    || ', ' || n.failed || ', ' || n.canceled
FROM chosen w CROSS JOIN LATERAL (
    SELECT count(*) AS steps, count(*) FILTER (WHERE settled = 'finished') AS finished,
        count(*) FILTER (WHERE settled = 'failed') AS failed,
        count(*) FILTER (WHERE settled = 'canceled') AS canceled
    FROM step s WHERE s.workflow_id = w.id) AS n
WHERE (w.steps, w.finished, w.failed, w.canceled) <> (n.steps, n.finished, n.failed, n.canceled)
UNION ALL
SELECT 'ended', id, NULL, 'it is ' || state || ', but ' || settled || ' of ' || steps || ' steps have settled'
FROM chosen WHERE (ended_at IS NOT NULL) <> (settled = steps)
UNION ALL
SELECT 'not_released', workflow_id, name, 'it waits for nothing, but was not released'
FROM step WHERE run_state = 'running' AND is_overlooked
    AND state = 'deferred'
UNION ALL
SELECT 'removed', workflow_id, name, 'its job was deleted, and it has not settled'
FROM step WHERE settled IS NULL AND state IS NULL
UNION ALL
SELECT 'released_early', workflow_id, name,
    'its job is ' || state || ', but ' || pending || ' edges keep it waiting'
FROM step WHERE pending > 0 AND settled IS NULL
    AND state IN ('scheduled', 'available', 'queued', 'started', 'retryable')
UNION ALL
SELECT 'callback', w.id, NULL, 'its end number ' || w.end_no || ' was not reported'
FROM chosen w WHERE w.ended_at IS NOT NULL AND w.on_end IS NOT NULL
    AND NOT EXISTS (SELECT FROM opsjobs.callbacks c
        WHERE c.of = 'workflow' AND c.of_id = w.id AND c.end_no = w.end_no AND c.event = 'end')
ORDER BY run, code, step
