-- Passes ends of steps on: takes end events of a run, settles those of their steps that are final now, and
-- lowers `pending` of the steps behind them. Returns one row: how many end events it took, and the steps that
-- did not finish, with the first cause of each.
-- An end event only names a step to look at: whether the step has ended is decided by its job's row. An
-- event of a step that has settled already and did not finish is returned too: then not all steps behind it
-- were canceled the last time.
-- `pending` of a step that settles in the same moment, or that was released before, stays as it is: nothing
-- reads it any more. A step is released before one in front of it ends, when that one was reopened behind an
-- edge that says `continue`.
-- The caller holds the run's lock, and took it in an earlier statement.
-- Run by `advance`. Indexes: workflow_end_events_by_run, steps_pkey, jobs_pkey, edges_pkey,
-- workflows_pkey.
WITH events AS MATERIALIZED (
    DELETE FROM opsjobs.workflow_end_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM opsjobs.workflow_end_events WHERE workflow_id = %(id)s LIMIT %(limit)s))
    RETURNING job_id
), ended AS MATERIALIZED (
    SELECT s.job_id, j.state, j.started_at, s.settled IS NULL AS is_new,
        coalesce(s.settled_by, s.job_id) AS cause
    FROM (SELECT DISTINCT job_id FROM events) AS e
    JOIN opsjobs.steps s USING (job_id)
    JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE j.state IN ('finished', 'failed', 'canceled')
), settled AS (
    UPDATE opsjobs.steps s SET settled = e.state, settled_at = %(now)s
    FROM ended e WHERE s.job_id = e.job_id AND e.is_new
), lowered AS (
    UPDATE opsjobs.steps s SET pending = s.pending - n.number
    FROM (
        SELECT d.to_id, count(*) AS number
        FROM ended e JOIN opsjobs.edges d ON d.from_id = e.job_id
        WHERE e.is_new AND (e.state = 'finished' OR d.on_failure = 'continue')
          AND d.to_id NOT IN (SELECT job_id FROM ended)
        GROUP BY d.to_id) AS n
    WHERE s.job_id = n.to_id AND s.settled IS NULL AND s.released_at IS NULL
), counted AS (
    UPDATE opsjobs.workflows w SET settled = w.settled + n.settled, finished = w.finished + n.finished,
        failed = w.failed + n.failed, canceled = w.canceled + n.canceled,
        started_at = least(w.started_at, n.started_at)
    FROM (
        SELECT count(*) AS settled, count(*) FILTER (WHERE state = 'finished') AS finished,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'canceled') AS canceled, min(started_at) AS started_at
        FROM ended WHERE is_new) AS n
    WHERE w.id = %(id)s AND n.settled > 0
)
SELECT (SELECT count(*) FROM events) AS events,
    coalesce(array_agg(job_id ORDER BY job_id) FILTER (WHERE state <> 'finished'), '{}') AS unfinished,
    coalesce(array_agg(cause ORDER BY job_id) FILTER (WHERE state <> 'finished'), '{}') AS causes
FROM ended
