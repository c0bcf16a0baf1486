-- Reads the oldest %(limit)s failed attempts that are not counted yet, of jobs of ours and of RQ, with the
-- deploy and the start of their workers. Locks them; those that are locked are left to a later pass, so this
-- waits for nobody.
-- Rows: both.
-- Run by the roll_up loop. Index: attempts_to_count.
SELECT a.job_id, a.dispatch_no, a.failure_key AS key, j.task, a.outcome, a.started_at, a.ended_at, a.death,
    a.max_rss_kb AS peak_kb, (a.death_facts ->> 'limit_kb')::bigint AS limit_kb,
    w.deploy_id, w.started_at AS worker_started_at,
    j.state = 'failed' AND j.dispatch_no = a.dispatch_no AS is_last
FROM opsjobs.attempts a
JOIN opsjobs.jobs j ON j.id = a.job_id
LEFT JOIN opsjobs.workers w ON w.id = a.worker_id
WHERE a.failure_key IS NOT NULL AND NOT a.is_counted
ORDER BY a.ended_at LIMIT %(limit)s FOR UPDATE OF a SKIP LOCKED
