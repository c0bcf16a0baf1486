-- Locks adopted jobs in id order and returns them with RQ's facts: of each RQ id the job that RQ created
-- at the given time, and those that have not ended. RQ uses an id again after a job's end.
-- Rows: rq.
-- Run by the adopt loop, with at most 2,000 ids. Index: jobs_of_rq.
SELECT j.id, j.rq_id, j.rq_created_at, j.state, j.queue, j.task, j.rq_status, j.attempt, j.max_attempts,
    j.timeout_seconds, j.due_at, j.ended_by, j.error, j.created_at, j.dispatched_at, j.started_at, j.ended_at,
    f.structure, f.depends_on, f.allows_failure, f.group_id, f.cron, f.repeats_left, f.retries_left,
    f.rate_limit_key, f.ttl_seconds, f.created_source, f.dispatched_source, f.started_source,
    f.ended_source, f.created_after, f.dispatched_after, f.started_after, f.ended_after, f.changed_at
FROM opsjobs.jobs j JOIN opsjobs.rq_facts f ON f.job_id = j.id
WHERE j.id IN (
    SELECT o.id
    FROM unnest(%(rq_ids)s::text[], %(created_ats)s::timestamptz[]) AS wanted (rq_id, created_at)
    JOIN opsjobs.jobs o ON o.origin = 'rq' AND o.rq_place = %(place)s AND o.rq_id = wanted.rq_id
        AND (o.ended_at IS NULL OR o.rq_created_at IS NOT DISTINCT FROM wanted.created_at))
ORDER BY j.id FOR NO KEY UPDATE OF j
