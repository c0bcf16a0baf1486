-- Counts the rows that retention would remove now, as (what, how many), with the conditions of the files
-- retain_*.sql.
-- Run by `flask opsjobs retain --dry-run`. Indexes: jobs_to_retain, outputs_to_retain,
-- unique_locks_to_retain, previews_to_retain, cron_slots_to_retain.
SELECT 'outputs', count(*) FROM opsjobs.outputs WHERE created_at < %(outputs)s
UNION ALL
SELECT 'unique_locks', count(*) FROM opsjobs.unique_locks WHERE expires_at < %(unique_locks)s
UNION ALL
SELECT 'workers', count(*) FROM opsjobs.workers w
WHERE started_at < %(workers)s AND ended_at < %(workers)s
    AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j WHERE j.worker_id = w.id AND j.state = 'started')
UNION ALL
SELECT 'loop_runs', count(*) FROM opsjobs.loop_runs WHERE last_at < %(loop_runs)s
UNION ALL
SELECT 'previews', count(*) FROM opsjobs.previews WHERE created_at < %(previews)s
UNION ALL
SELECT 'rollups', count(*) FROM opsjobs.rollups WHERE minute < %(rollups)s
UNION ALL
SELECT 'depths', count(*) FROM opsjobs.depths WHERE minute < %(depths)s
UNION ALL
SELECT 'cron_slots', count(*) FROM opsjobs.cron_slots
WHERE decided_at < %(cron_slots)s AND (job_id IS NULL OR ended_at IS NOT NULL)
UNION ALL
SELECT 'limit_minutes', count(*) FROM opsjobs.limit_minutes WHERE minute < %(limit_minutes)s
UNION ALL
SELECT 'limit_rejections', count(*) FROM opsjobs.limit_rejections WHERE at < %(limit_rejections)s
UNION ALL
SELECT 'buckets', count(*) FROM opsjobs.buckets b LEFT JOIN opsjobs.limiters l ON l.name = b.limiter
WHERE b.last_used_at < %(buckets)s AND (b.cooldown_until IS NULL OR b.cooldown_until < %(now)s)
    AND (b.tokens IS NULL OR l.rate IS NULL
        OR b.tokens + extract(epoch FROM %(now)s::timestamptz - b.refilled_at) * l.rate / l.per_seconds
            >= l.burst)
UNION ALL
SELECT 'finished jobs', count(*) FROM opsjobs.jobs
WHERE state = 'finished' AND ended_at < %(finished)s
UNION ALL
SELECT 'canceled jobs', count(*) FROM opsjobs.jobs
WHERE state = 'canceled' AND ended_at < %(canceled)s
UNION ALL
SELECT 'failed jobs', count(*) FROM opsjobs.jobs
WHERE state = 'failed' AND ended_at < %(failed)s
