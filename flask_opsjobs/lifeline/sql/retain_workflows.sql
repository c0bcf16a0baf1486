-- Removes the oldest runs of one final state that ended before %(before)s, each whole: its jobs with their
-- attempts and outputs, its steps, edges and callbacks. Stops after the run with which %(limit)s jobs are
-- reached, so it removes at most %(limit)s jobs and the rest of one run. Returns a row for each job.
-- SKIP LOCKED: somebody retries a step of that run right now. Such a run is no longer final after that. Locks
-- the runs, then their jobs in id order. A run with a job that has not ended stays.
-- The removal is counted, for the integrity check.
-- Rows: opsjobs, by their runs.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: workflows_to_retain, jobs_of_run,
-- steps_name_key, edges_pkey, callbacks_pkey, workflow_end_events_by_run.
WITH old AS MATERIALIZED (
    SELECT id, steps, ended_at FROM opsjobs.workflows w
    WHERE state = %(state)s AND ended_at < %(before)s AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j WHERE j.workflow_id = w.id
          AND j.state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable'))
    ORDER BY ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id FROM (SELECT id, sum(steps) OVER (ORDER BY ended_at, id) - steps AS older FROM old) AS summed
    WHERE older < %(limit)s
), locked AS MATERIALIZED (
    SELECT j.id FROM chosen c JOIN opsjobs.jobs j ON j.workflow_id = c.id ORDER BY j.id FOR UPDATE OF j
), gone AS (
    DELETE FROM opsjobs.jobs j USING locked l WHERE j.id = l.id RETURNING j.queue
), edges AS (
    DELETE FROM opsjobs.edges e USING chosen c JOIN opsjobs.steps s ON s.workflow_id = c.id
    WHERE e.from_id = s.job_id
), callbacks AS (
    DELETE FROM opsjobs.callbacks b USING chosen c WHERE b.of = 'workflow' AND b.of_id = c.id
), events AS (
    DELETE FROM opsjobs.workflow_end_events e USING chosen c WHERE e.workflow_id = c.id
), runs AS (
    DELETE FROM opsjobs.workflows w USING chosen c WHERE w.id = c.id
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, deleted)
    SELECT clock_timestamp(), queue, count(*) FROM gone GROUP BY queue
)
SELECT FROM gone
