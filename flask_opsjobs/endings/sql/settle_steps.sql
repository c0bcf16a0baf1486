-- Passes ends of steps on: takes end events of a run, which name at most %(limit)s steps or are a single
-- one, settles those of their steps that are final now, and lowers `pending` of the steps behind them, over
-- at most %(limit)s edges. Returns one row: how many end events it took and whether some are left, how many
-- steps settled, whether edges are left, the steps that did not finish with the first cause of each, the
-- steps behind that wait for nothing any more, by what their release needs, and whether the run had such
-- steps or open waits before.
-- An end event only names steps to look at: whether a step has ended is decided by its job's row. A step
-- whose job was deleted by SQL is lost: it settles as failed. A named step that has settled already and did
-- not finish is returned too: then not all steps behind it were canceled the last time. Edges are read in
-- the order of their steps: where the limit cuts them, that step and those after it remember in `passed_to`
-- how far their ends were passed on, and get another event.
-- A step that waits for nothing any more keeps its row as it is: its release writes it, in the same
-- transaction, and so only once. `pending` of a step that settles in the same moment, or that was released
-- before, stays as it is: nothing reads it any more. A step is released before one in front of it ends, when
-- that one was reopened behind an edge that says `continue`.
-- The caller holds the run's lock, and took it in an earlier statement.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: workflow_end_events_by_run, steps_pkey, jobs_pkey, edges_pkey,
-- workflows_pkey, steps_overlooked, steps_open_waits_of_run.
WITH found AS MATERIALIZED (
    SELECT ctid, row_number() OVER in_turn AS position, sum(cardinality(job_ids)) OVER in_turn AS steps
    FROM (
        SELECT ctid, job_ids FROM opsjobs.workflow_end_events WHERE workflow_id = %(id)s
        LIMIT %(limit)s + 1) AS e
    WINDOW in_turn AS (ROWS UNBOUNDED PRECEDING)
), events AS MATERIALIZED (
    DELETE FROM opsjobs.workflow_end_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM found WHERE steps <= %(limit)s OR position = 1))
    RETURNING job_ids
), ended AS MATERIALIZED (
    SELECT s.job_id, coalesce(j.state, s.settled, 'failed') AS state, j.started_at,
        s.settled IS NULL AS is_new,
        CASE WHEN s.settled IS NULL THEN 0 ELSE s.passed_to END AS passed_to,
        coalesce(s.settled_by, s.job_id) AS cause
    FROM (SELECT DISTINCT unnest(job_ids) AS job_id FROM events) AS e
    JOIN opsjobs.steps s USING (job_id)
    LEFT JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE j.state IS NULL OR j.state IN ('finished', 'failed', 'canceled')
    ORDER BY s.job_id
), edge AS MATERIALIZED (
    SELECT e.job_id AS from_id, d.to_id FROM ended e CROSS JOIN LATERAL (
        SELECT to_id FROM opsjobs.edges
        WHERE from_id = e.job_id AND to_id > e.passed_to AND (e.state = 'finished' OR on_failure = 'continue')
        ORDER BY to_id) AS d
    LIMIT %(limit)s
), cut AS MATERIALIZED (
    SELECT from_id, to_id FROM edge OFFSET %(limit)s - 1
), remaining AS MATERIALIZED (
    SELECT e.job_id, reached.to_id AS passed_to FROM cut c JOIN ended e ON e.job_id >= c.from_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.job_id = c.from_id THEN c.to_id ELSE e.passed_to END AS to_id) AS reached
    WHERE EXISTS (
        SELECT FROM opsjobs.edges
        WHERE from_id = e.job_id AND to_id > reached.to_id
          AND (e.state = 'finished' OR on_failure = 'continue'))
), settled AS (
    UPDATE opsjobs.steps s SET settled = e.state, passed_to = r.passed_to,
        settled_at = CASE WHEN e.is_new THEN %(now)s ELSE s.settled_at END
    FROM ended e LEFT JOIN remaining r USING (job_id)
    WHERE s.job_id = e.job_id AND e.passed_to IS NOT NULL
), again AS (
    INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids)
    SELECT %(id)s, array_agg(job_id) FROM remaining HAVING count(*) > 0
), behind AS MATERIALIZED (
    SELECT s.job_id, s.pending - n.number AS pending, s.kind = 'wait' AS is_wait,
        s.takes IS NOT NULL AS takes_results
    FROM (SELECT to_id, count(*) AS number FROM edge GROUP BY to_id) AS n
    JOIN opsjobs.steps s ON s.job_id = n.to_id
    WHERE s.settled IS NULL AND s.released_at IS NULL AND s.job_id NOT IN (SELECT job_id FROM ended)
), lowered AS (
    UPDATE opsjobs.steps s SET pending = b.pending FROM behind b WHERE s.job_id = b.job_id AND b.pending <> 0
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
    (SELECT count(*) FROM found) > (SELECT count(*) FROM events) AS has_events_left,
    EXISTS (SELECT FROM remaining) AS has_edges_left,
    count(*) FILTER (WHERE is_new) AS settled,
    coalesce(array_agg(job_id ORDER BY job_id) FILTER (WHERE state <> 'finished'), '{}') AS unfinished,
    coalesce(array_agg(cause ORDER BY job_id) FILTER (WHERE state <> 'finished'), '{}') AS causes,
    ARRAY(SELECT job_id FROM behind WHERE pending = 0 AND NOT is_wait AND NOT takes_results) AS plain,
    ARRAY(SELECT job_id FROM behind WHERE pending = 0 AND takes_results) AS taking,
    ARRAY(SELECT job_id FROM behind WHERE pending = 0 AND is_wait) AS waits,
    EXISTS (SELECT FROM opsjobs.steps WHERE workflow_id = %(id)s AND is_overlooked) AS has_steps_to_release,
    EXISTS (SELECT FROM opsjobs.steps WHERE workflow_id = %(id)s AND is_wait_left AND opened_at IS NOT NULL)
        AS has_open_waits
FROM ended
