-- Finds open batches to which nothing was added for a day, and closed ones with open members of which none
-- runs, none waits for a time, a limit, a paused queue or task, and the newest that is due has been so for
-- an hour.
-- Of each state only the newest member is read, and of the open ones the oldest: `due_at` is since when one
-- has been due.
-- Rows: opsjobs, by their batches.
-- Run by the loop detect. Indexes: batches_by_state, jobs_of_batch, jobs_open_of_batch.
SELECT b.id, b.name, b.state, b.trouble, b.enqueued, b.lost, members.newest_at, least(members.due_at, (
        SELECT j.due_at FROM opsjobs.jobs j
        WHERE j.batch_id = b.id AND j.ended_at IS NULL ORDER BY j.id LIMIT 1)) AS due_at
FROM (
    (SELECT * FROM opsjobs.batches WHERE state = 'open' ORDER BY id LIMIT 1000)
    UNION ALL
    (SELECT * FROM opsjobs.batches WHERE state = 'running' ORDER BY id LIMIT 1000)
) AS b
CROSS JOIN LATERAL (
    SELECT max(created_at) AS newest_at, min(due_at) FILTER (WHERE is_open) AS due_at,
        bool_or(is_open) AS has_open, bool_or(is_open AND is_moving) AS is_moving
    FROM (
        SELECT newest.*, s.state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable')
                AS is_open,
            s.state IN ('queued', 'started', 'scheduled', 'retryable', 'deferred')
                OR newest.limiter IS NOT NULL
                OR EXISTS (SELECT FROM opsjobs.queues q WHERE q.name = newest.queue AND q.is_paused)
                OR EXISTS (SELECT FROM opsjobs.task_pauses p WHERE p.task = newest.task)
                AS is_moving
        FROM (VALUES ('deferred'), ('scheduled'), ('available'), ('queued'), ('started'), ('retryable'),
            ('finished'), ('failed'), ('canceled')) AS s(state)
        CROSS JOIN LATERAL (
            SELECT created_at, due_at, limiter, queue, task FROM opsjobs.jobs j
            WHERE j.batch_id = b.id AND j.state = s.state ORDER BY j.id DESC LIMIT 1
        ) AS newest
    ) AS each
) AS members
WHERE CASE b.state
    WHEN 'open' THEN greatest(b.created_at, members.newest_at)
        < %(now)s::timestamptz - interval '1 day'
    ELSE b.trouble IS NOT NULL OR (
        members.has_open AND NOT members.is_moving AND b.cancel_requested_at IS NULL
        AND members.due_at < %(now)s::timestamptz - interval '1 hour') END
ORDER BY b.id
LIMIT %(limit)s
