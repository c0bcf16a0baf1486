-- Lists the newest runs of each of these jobs: job, number, RQ's id of the run, its start, its end, whether
-- a worker of ours reported it. The caller has locked the jobs. RQ keeps the results of ten runs.
-- Rows: rq.
-- Run by the adopt loop. Index: attempts_pkey.
SELECT a.job_id, a.attempt, a.execution_id, a.started_at, a.ended_at, a.worker_id IS NOT NULL
FROM unnest(%(ids)s::bigint[]) AS wanted (id), LATERAL (
    SELECT * FROM opsjobs.attempts WHERE job_id = wanted.id ORDER BY dispatch_no DESC LIMIT 12) AS a
