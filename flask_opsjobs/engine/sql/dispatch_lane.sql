-- Takes the first due jobs of one lane, as many as the prefetch of its queue allows, and marks them
-- `queued`.
-- For a limited lane: takes jobs in order while their total weight is at most %(room)s, and skips jobs
-- heavier than %(most)s, because they can never start. Skips jobs of paused tasks. With %(number)s, which
-- is for a worker that takes jobs past Redis, that many jobs are allowed instead of the prefetch, of a
-- queue that is not paused. Returns how many jobs were allowed, and beside it each job taken, with the
-- fields of its delivery; one row without a job when none was taken. The caller commits synchronously, and
-- only then pushes: a dispatch number that a delivery carries must never be issued again, not even after a
-- crash.
-- SKIP LOCKED: another dispatcher or an operator has locked that job. Two dispatchers may exceed a prefetch,
-- which is harmless.
-- Nothing of our own queue `opsjobs` is dispatched: the loop escalate takes its jobs past Redis.
-- A worker counts with 2 x its children, whatever their run time: one of ours refills itself, and of a
-- plain one nobody knows the run times. In limited lanes it counts with 20 x: their limiters bound them, no
-- worker takes them past Redis, and many may have one job each. What a worker has reserved is not in Redis.
-- The lane is a range, as in take_jobs.sql.
-- Rows: opsjobs, by origin.
-- Run by the hook after a host's commit, by the dispatch loop, by a worker's recorder for lanes in which a
-- job ended or was given back, and by its taker while Redis is away. Indexes: jobs_due, jobs_queued,
-- workers_alive.
WITH prefetch AS MATERIALIZED (
    SELECT CASE WHEN coalesce(q.is_paused, false) OR %(queue)s = 'opsjobs' THEN 0
        ELSE coalesce(q.prefetch, %(prefetch)s::int, greatest(2, (
            SELECT sum(CASE WHEN %(lane)s = %(queue)s THEN 2 ELSE 20 END * e.processes)
            FROM {listeners.sql} AS e WHERE %(queue)s = ANY (e.queues)))) END AS size
    FROM (SELECT 1) AS one LEFT JOIN opsjobs.queues q ON q.name = %(queue)s
), in_redis AS MATERIALIZED (
    SELECT count(*) AS n FROM (
        SELECT 1 FROM opsjobs.jobs
        WHERE queue = %(queue)s AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
        LIMIT (SELECT size FROM prefetch)) AS seen
), room AS MATERIALIZED (
    SELECT CASE WHEN size > 0 THEN coalesce(%(number)s::bigint, greatest(0, size - n)) ELSE 0 END AS free
    FROM prefetch, in_redis
), picked AS MATERIALIZED (
    SELECT id, priority, due_at, weight FROM opsjobs.jobs
    WHERE lane >= %(lane)s AND lane <= %(lane)s AND state = 'available' AND origin = 'opsjobs'
      AND (%(most)s::int IS NULL OR weight <= %(most)s)
      AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
    ORDER BY lane, priority, due_at, id
    LIMIT (SELECT least(free, %(room)s::bigint) FROM room)
    FOR UPDATE SKIP LOCKED
), fitting AS (
    SELECT id, coalesce(sum(weight) OVER (ORDER BY priority, due_at, id), 0) AS reached FROM picked
), taken AS (
    UPDATE opsjobs.jobs j
    SET state = 'queued', dispatch_no = j.dispatch_no + 1, dispatched_at = %(now)s
    FROM fitting f WHERE j.id = f.id AND (%(room)s::bigint IS NULL OR f.reached <= %(room)s)
    RETURNING j.id, j.dispatch_no, j.queue, j.task, j.priority, j.timeout_seconds
)
SELECT room.free, taken.* FROM room LEFT JOIN taken ON true
