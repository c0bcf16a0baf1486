-- Writes how runs of plain RQ jobs ended, each job once, as the worker of ours saw it that ran them. A run
-- that the adopt loop has read from RQ is completed; a new one gets the next number. What followed from the
-- run becomes the state of the job, unless the row knows of something later: RQ has queued or started the job
-- again, or somebody has canceled it. `changed_at` keeps an older look of the adopt loop from winning.
-- The caller has locked the jobs.
-- Rows: rq.
-- Run by the recorder of a worker. Indexes: jobs_of_rq, attempts_pkey, rq_facts_pkey.
WITH runs AS MATERIALIZED (
    SELECT r.*, j.id AS job_id,
        coalesce(
            (SELECT a.dispatch_no FROM opsjobs.attempts a
             WHERE a.job_id = j.id AND a.execution_id = r.execution_id),
            (SELECT coalesce(max(a.dispatch_no), 0) + 1 FROM opsjobs.attempts a WHERE a.job_id = j.id)
        ) AS number,
        coalesce(greatest(j.dispatched_at, j.started_at), '-infinity') <= r.ended_at
            AND (j.state <> 'canceled' OR r.status = 'stopped') AS is_newest,
        CASE r.status
            WHEN 'finished' THEN 'finished' WHEN 'failed' THEN 'failed' WHEN 'stopped' THEN 'canceled'
            WHEN 'queued' THEN 'queued'
            WHEN 'scheduled' THEN CASE r.outcome WHEN 'returned' THEN 'scheduled' ELSE 'retryable' END
            ELSE j.state
        END AS state
    FROM json_to_recordset(%(rows)s) AS r (rq_id text, created_at timestamptz, execution_id text,
        started_at timestamptz, ended_at timestamptz, status text, outcome text, pid integer, error text,
        traceback text, log_tail text, cause_of_death text, death text, death_facts jsonb, failure_key text)
    JOIN opsjobs.jobs j ON j.rq_id = r.rq_id AND j.rq_created_at = r.created_at
    WHERE j.origin = 'rq' AND j.rq_place = %(place)s
), ends (state, ended_by) AS (
    VALUES ('finished', 'returned'), ('failed', 'exhausted'), ('canceled', 'canceled')
), attempts AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, execution_id, worker_id, worker, pid,
        started_at, ended_at, outcome, error, traceback, log_tail, cause_of_death, death, death_facts,
        failure_key)
    SELECT job_id, number, number, execution_id, %(worker_id)s, %(worker)s, pid, started_at, ended_at,
        outcome, error, traceback, log_tail, cause_of_death, death, death_facts, decode(failure_key, 'hex')
    FROM runs
    ON CONFLICT (job_id, dispatch_no) DO UPDATE SET
        worker_id = excluded.worker_id, worker = excluded.worker, pid = excluded.pid,
        started_at = excluded.started_at, ended_at = excluded.ended_at, outcome = excluded.outcome,
        error = excluded.error, traceback = excluded.traceback, log_tail = excluded.log_tail,
        cause_of_death = excluded.cause_of_death, death = excluded.death,
        death_facts = excluded.death_facts, failure_key = excluded.failure_key
), facts AS (
    UPDATE opsjobs.rq_facts f SET changed_at = clock_timestamp(),
        started_source = 'worker', started_after = NULL,
        ended_source = CASE WHEN ends.state IS NOT NULL THEN 'worker' END, ended_after = NULL
    FROM runs LEFT JOIN ends USING (state)
    WHERE f.job_id = runs.job_id AND runs.is_newest
)
UPDATE opsjobs.jobs j SET
    attempt = greatest(j.attempt, runs.number), dispatch_no = greatest(j.dispatch_no, runs.number),
    max_attempts = greatest(j.max_attempts, runs.number),
    state = CASE WHEN is_newest THEN runs.state ELSE j.state END,
    started_at = CASE WHEN is_newest THEN runs.started_at ELSE j.started_at END,
    ended_at = CASE WHEN NOT is_newest THEN j.ended_at WHEN ends.state IS NOT NULL THEN runs.ended_at END,
    ended_by = CASE WHEN is_newest THEN ends.ended_by ELSE j.ended_by END,
    error = CASE WHEN is_newest THEN runs.error ELSE j.error END,
    rq_status = CASE WHEN is_newest THEN runs.status ELSE j.rq_status END
FROM runs LEFT JOIN ends USING (state)
WHERE j.id = runs.job_id
