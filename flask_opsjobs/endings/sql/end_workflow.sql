-- Ends a run when all its steps have settled. Returns what its callback tells; no row while a step is left.
-- The first rule that applies decides: canceled, when somebody canceled the run and this stopped a step;
-- failed, when a step that must finish did not; else finished. The first such step is the culprit, without
-- those that were only canceled because of another. The first is the one whose job shows the earliest time,
-- since operators see the times and nobody sees the order of commits. Of several that one statement ended it
-- is the first in the order of the graph, which is that of the ids. (`position` of a member is its element.)
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: workflows_pkey, steps_name_key, jobs_pkey.
WITH run AS MATERIALIZED (
    SELECT * FROM opsjobs.workflows
    WHERE id = %(id)s AND settled = steps AND state IN ('running', 'canceling')
), culprit AS MATERIALIZED (
    SELECT s.name FROM run w JOIN opsjobs.steps s ON s.workflow_id = w.id
    LEFT JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE w.finished < w.steps AND s.settled <> 'finished' AND NOT s.may_fail
      AND j.ended_by IS DISTINCT FROM 'dependency'
    ORDER BY j.ended_at, s.job_id LIMIT 1
), stopped AS MATERIALIZED (
    SELECT EXISTS (
        SELECT FROM run w JOIN opsjobs.steps s ON s.workflow_id = w.id JOIN opsjobs.jobs j ON j.id = s.job_id
        WHERE w.state = 'canceling' AND s.settled = 'canceled' AND j.ended_by = 'canceled'
          AND greatest(j.ended_at, j.cancel_requested_at) >= w.cancel_requested_at) AS is_true
), judged AS MATERIALIZED (
    SELECT w.id, c.name AS culprit,
        CASE WHEN s.is_true AND w.cancel_requested_by = %(deadline)s THEN 'deadline'
            WHEN s.is_true THEN 'canceled'
            WHEN c.name IS NOT NULL THEN 'step' ELSE 'finished' END AS ended_by
    FROM run w CROSS JOIN stopped s LEFT JOIN culprit c ON true
)
UPDATE opsjobs.workflows w SET ended_at = %(now)s, end_no = w.end_no + 1, ended_by = d.ended_by,
    ended_by_step = CASE d.ended_by WHEN 'step' THEN d.culprit END,
    state = CASE d.ended_by WHEN 'canceled' THEN 'canceled' WHEN 'finished' THEN 'finished' ELSE 'failed' END
FROM judged d WHERE w.id = d.id
RETURNING w.id, w.name, w.state, w.end_no, w.context, w.on_end
