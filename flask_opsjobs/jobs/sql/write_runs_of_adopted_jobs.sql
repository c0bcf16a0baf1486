-- Writes runs of adopted jobs as RQ keeps them: new ones, and the end of those that went on. A run that a
-- worker of ours reported is left alone. The caller has locked the jobs.
-- Rows: rq.
-- Run by the adopt loop. Index: attempts_pkey.
INSERT INTO opsjobs.attempts AS a
    (job_id, dispatch_no, attempt, execution_id, worker, started_at, ended_at, outcome, error, traceback,
        death_facts)
SELECT job_id, number, number, execution_id, worker, started_at, ended_at, outcome, error, traceback,
    death_facts
FROM json_to_recordset(%(rows)s) AS r (job_id bigint, number integer, execution_id text, worker text,
    started_at timestamptz, ended_at timestamptz, outcome text, error text, traceback text, death_facts jsonb)
ON CONFLICT (job_id, dispatch_no) DO UPDATE SET
    ended_at = excluded.ended_at, outcome = excluded.outcome, error = excluded.error,
    traceback = excluded.traceback, death_facts = excluded.death_facts
WHERE a.worker_id IS NULL AND a.ended_at IS NULL
