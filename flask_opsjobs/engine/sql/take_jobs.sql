-- Takes the best due jobs of some queues for one worker, past Redis: marks them `queued` under a new
-- dispatch number and reserved by the worker. The queues come in the given order; in a queue priority, due
-- time, id. Passes paused and draining queues and jobs of paused tasks by, and limited jobs, which wait in
-- lanes of their own. It reads past each due job of a paused task that comes first. Takes at most %(limit)s
-- jobs, and no more once their arguments reach %(bytes)s; the first job is always taken.
-- With %(waited)s only jobs that have been due for so long: a worker whose children are all busy leaves the
-- newer ones to idle workers.
-- Returns the names of the paused queues and tasks beside each job, its arguments as text and its times as
-- seconds since 1970; one row without a job when none was taken. Jobs whose deadline has passed are taken
-- too: the worker ends them, else they would block the lane. Commits synchronously, so that the number is
-- never given twice. The lane is a range and not an equality: with statistics from before a backlog came,
-- the planner would read and sort all of it.
-- SKIP LOCKED: another worker or a dispatcher takes that job.
-- Rows: opsjobs, by origin.
-- Run by a worker's taker. Indexes: jobs_due, queues_pkey, task_pauses_pkey.
WITH durable AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true)
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM durable
), named AS MATERIALIZED (
    SELECT n.queue, n.place, coalesce(q.is_paused, false) AS is_paused
    FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS n(queue, place)
    LEFT JOIN opsjobs.queues q ON q.name = n.queue
    ORDER BY n.place
), picked AS MATERIALIZED (
    SELECT d.*, n.place FROM named n CROSS JOIN LATERAL (
        SELECT id, priority, due_at,
            CASE WHEN pg_column_size(args) < 1000 THEN pg_column_size(args)
                ELSE octet_length(args::text) END AS size
        FROM opsjobs.jobs
        WHERE lane >= n.queue AND lane <= n.queue AND state = 'available' AND origin = 'opsjobs'
            AND (%(waited)s::interval IS NULL OR due_at <= now() - %(waited)s::interval)
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at, id
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS d
    WHERE NOT n.is_paused
    LIMIT %(limit)s
), fitting AS MATERIALIZED (
    SELECT id, place, sum(size) OVER (ORDER BY place, priority, due_at, id) - size AS before FROM picked
), taken AS (
    UPDATE opsjobs.jobs j
    SET state = 'queued', dispatch_no = j.dispatch_no + 1, dispatched_at = m.now,
        reserved_by = %(worker_id)s
    FROM fitting f, moment m WHERE j.id = f.id AND f.before < %(bytes)s
    RETURNING j.id, j.dispatch_no, j.queue, j.task, j.args::text AS args, j.meta::text AS meta, j.tags,
        j.priority, extract(epoch FROM j.due_at)::float8 AS due_at, j.attempt + 1 AS attempt, j.max_attempts,
        j.timeout_seconds, extract(epoch FROM j.deadline_at)::float8 AS deadline_at,
        extract(epoch FROM j.created_at)::float8 AS created_at, j.lost_reservations,
        extract(epoch FROM m.now)::float8 AS taken_at
)
SELECT (SELECT coalesce(array_agg(queue), '{}') FROM named WHERE is_paused) AS paused, taken.*,
    ARRAY(SELECT p.task FROM opsjobs.task_pauses p) AS paused_tasks
FROM (SELECT 1) AS one LEFT JOIN taken ON true
