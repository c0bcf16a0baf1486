-- Finds queues in which over half of the attempts that ended within ten minutes are repeats, 100 or more of
-- 20 jobs or more, among the 5,000 repeats that ended last. How many first attempts ended is known from the
-- jobs that ended and from the second attempts. The jobs that ended are known by the minute, and those of the
-- last minutes, which are not counted yet, from their rows: of each state the newest 10,000. What operators
-- retried within half an hour is subtracted; a batch or a workflow counts as many.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: attempts_repeated, jobs_pkey, rollups_pkey, jobs_to_retain,
-- audit_by_action.
WITH repeats AS MATERIALIZED (
    SELECT j.queue, count(*) AS number, count(DISTINCT a.job_id) AS jobs,
        count(*) FILTER (WHERE a.attempt = 2) AS firsts,
        count(*) FILTER (WHERE j.ended_at IS NULL OR a.ended_at < j.ended_at) AS not_final,
        (array_agg(j.task ORDER BY a.ended_at DESC))[1] AS task
    FROM (
        SELECT job_id, attempt, ended_at FROM opsjobs.attempts
        WHERE attempt >= 2 AND ended_at > %(now)s::timestamptz - interval '10 min'
        ORDER BY ended_at DESC LIMIT 5000
    ) AS a
    JOIN opsjobs.jobs j ON j.id = a.job_id AND j.origin = 'opsjobs'
    GROUP BY j.queue
    HAVING count(*) >= 100 AND count(DISTINCT a.job_id) >= 20
), uncounted AS MATERIALIZED (
    SELECT last.queue, count(*) AS number
    FROM (
        SELECT greatest(max(counted_until), %(now)s::timestamptz - interval '10 min') AS at
        FROM opsjobs.rollup_position) AS since,
    (VALUES ('finished'), ('failed'), ('canceled')) AS of(state),
    LATERAL (
        SELECT queue FROM opsjobs.jobs
        WHERE state = of.state AND ended_at >= since.at AND origin = 'opsjobs'
        ORDER BY ended_at DESC LIMIT 10000) AS last
    WHERE EXISTS (SELECT FROM repeats)
    GROUP BY last.queue
), asked AS (
    SELECT coalesce(sum(CASE action WHEN 'job.retry' THEN cardinality(targets) ELSE 10000 END), 0) AS number
    FROM (
        SELECT action, targets, at FROM (VALUES ('job.retry'), ('batch.retry'), ('workflow.retry')) AS
            of(name),
        LATERAL (
            SELECT action, targets, at FROM opsjobs.audit_events e
            WHERE e.action = of.name AND e.outcome = 'done' ORDER BY e.sequence DESC LIMIT 50) AS newest
    ) AS recent WHERE at > %(now)s::timestamptz - interval '30 min'
)
SELECT r.queue, r.task, r.number, r.jobs, ended.number AS ended
FROM repeats r CROSS JOIN asked
CROSS JOIN LATERAL (
    SELECT coalesce((
            SELECT sum(finished + failed + canceled) FROM opsjobs.rollups
            WHERE minute > %(now)s::timestamptz - interval '11 min' AND queue = r.queue), 0)
        + coalesce((SELECT number FROM uncounted WHERE queue = r.queue), 0) AS number
) AS ended
WHERE r.number - asked.number >= 100
    AND 2 * (r.number - asked.number) > ended.number + r.firsts + r.not_final
ORDER BY r.queue
LIMIT %(limit)s
