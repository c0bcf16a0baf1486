-- Lists the adopted jobs of a place that have been started for two minutes or longer: id, queue, task, RQ's
-- id, when, and of its run that goes on RQ's name and the worker. Those with ids above %(after)s.
-- Rows: rq.
-- Run by the adopt loop. Indexes: jobs_by_state, attempts_pkey.
SELECT j.id, j.queue, j.task, j.rq_id, j.started_at, run.execution_id, run.worker
FROM opsjobs.jobs j
LEFT JOIN LATERAL (
    SELECT a.execution_id, a.worker FROM opsjobs.attempts a
    WHERE a.job_id = j.id AND a.ended_at IS NULL ORDER BY a.dispatch_no DESC LIMIT 1
) AS run ON true
WHERE j.state = 'started' AND j.origin = 'rq' AND j.rq_place = %(place)s
    AND j.id > %(after)s AND j.started_at < %(now)s::timestamptz - interval '2 min'
ORDER BY j.id LIMIT %(limit)s
