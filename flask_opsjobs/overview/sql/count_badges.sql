-- Counts what needs an operator: failed jobs without a decision (among the last %(most)s that failed), paused
-- queues with due jobs, paused tasks, queues with due jobs and no worker, workers that went missing within a
-- day, cron slots of outages that ended within a day, limiters in cooldown, or with a partition in cooldown,
-- and runs that need a person, each by its gravest reason, at most %(most_runs)s of each kind. Queues are
-- found by loose index scans, one probe each, at most %(most_lanes)s. Locks nothing.
-- Rows: both.
-- Run by overview/badges.py. Indexes: jobs_to_retain, jobs_due, jobs_queued, workers_alive,
-- cron_slots_missed, limiters_pkey, buckets_cooling, workflows_with_trouble, workflows_to_retain,
-- signals_by_outcome, steps_waits_left, steps_open_waits_of_run.
WITH RECURSIVE lanes (lane, queue) AS (
    (SELECT lane, queue FROM opsjobs.jobs WHERE state = 'available' ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT next.lane, next.queue FROM lanes, LATERAL (
        SELECT lane, queue FROM opsjobs.jobs
        WHERE state = 'available' AND lane > lanes.lane
        ORDER BY lane LIMIT 1
    ) AS next
), with_queued (queue) AS (
    (SELECT queue FROM opsjobs.jobs WHERE state = 'queued' AND origin = 'opsjobs'
     ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT next.queue FROM with_queued, LATERAL (
        SELECT queue FROM opsjobs.jobs
        WHERE state = 'queued' AND origin = 'opsjobs' AND queue > with_queued.queue
        ORDER BY queue LIMIT 1
    ) AS next
), due AS (
    (SELECT queue FROM lanes LIMIT %(most_lanes)s) UNION (SELECT queue FROM with_queued LIMIT %(most_lanes)s)
), judged AS (
    SELECT queue,
           coalesce((SELECT is_paused FROM opsjobs.queues AS q WHERE q.name = due.queue), false) AS is_paused,
           EXISTS (SELECT FROM {listeners.sql} AS e WHERE due.queue = ANY (e.queues)) AS is_listened
    FROM due
)
SELECT
    (SELECT count(*) FROM (
        SELECT ended_by FROM opsjobs.jobs WHERE state = 'failed' AND ended_at IS NOT NULL
        ORDER BY state, ended_at DESC LIMIT %(most)s
    ) AS failed WHERE ended_by <> 'discarded') AS failed,
    (SELECT count(*) FROM judged WHERE is_paused) AS paused,
    (SELECT count(*) FROM opsjobs.task_pauses) AS paused_tasks,
    (SELECT count(*) FROM judged
     WHERE NOT is_paused AND NOT is_listened AND queue <> 'opsjobs') AS unserved,
    (SELECT count(*) FROM (
        SELECT ended_at FROM opsjobs.workers
        WHERE state = 'missing' AND forgotten_at IS NULL AND kind <> 'loops' LIMIT 1000
    ) AS gone WHERE ended_at > %(now)s::timestamptz - interval '1 day') AS missing,
    (SELECT coalesce(sum(slots), 0) FROM (
        SELECT slots, until_at FROM opsjobs.cron_slots
        WHERE result = 'missed'
        ORDER BY slot_at DESC LIMIT 1000
    ) AS newest WHERE until_at > %(now)s::timestamptz - interval '1 day') AS missed,
    (SELECT count(*) FROM (
        SELECT name FROM opsjobs.limiters WHERE cooldown_until > %(now)s
        UNION
        (SELECT limiter FROM opsjobs.buckets WHERE cooldown_until > %(now)s LIMIT 1000)
    ) AS cooling) AS cooling,
    needs.*
FROM (
    SELECT count(*) FILTER (WHERE why = 1) AS trouble, count(*) FILTER (WHERE why = 2) AS ambiguous,
        count(*) FILTER (WHERE why = 3) AS overdue, count(*) FILTER (WHERE why = 4) AS failed_runs
    FROM (
        SELECT min(array_position(ARRAY['trouble', 'ambiguous', 'overdue', 'failed'], why)) AS why
        FROM {list_runs_that_need_help.sql} AS need GROUP BY run
    ) AS gravest
) AS needs
