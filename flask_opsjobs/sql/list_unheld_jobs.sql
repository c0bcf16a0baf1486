-- Started jobs that nobody says he holds: id, dispatch number, queue, and the number of the beat that lacks it, NULL when
-- no executor is left to beat. A beat before the claim says nothing, and a plain RQ worker never says what it holds.
-- Few rows stand as started, at most %(limit)s are read. Locks nothing.
-- Run by the keep_books loop, which asks again before it believes. Indexes: jobs_started, executors_pkey.
SELECT j.id, j.dispatch_no, j.queue, CASE WHEN e.ended_at IS NULL THEN e.beat END AS beat
FROM (
    SELECT id, dispatch_no, queue, executor_id, started_at FROM opsjobs.jobs
    WHERE state = 'started' AND origin = 'opsjobs' LIMIT %(limit)s
) AS j
LEFT JOIN opsjobs.executors e ON e.id = j.executor_id
WHERE e.id IS NULL OR e.ended_at IS NOT NULL
    OR (e.kind <> 'plain' AND e.beat_at > j.started_at AND NOT (j.id || '-' || j.dispatch_no) = ANY (e.holding))
