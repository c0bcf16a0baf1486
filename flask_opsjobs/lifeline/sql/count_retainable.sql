-- Counts the rows that retention would remove now, as (what, how many), with the conditions of the files
-- retain_*.sql.
-- Rows: both.
-- Run by `flask opsjobs retain --dry-run`. Indexes: jobs_alone_to_retain,
-- outputs_to_retain, unique_locks_to_retain, previews_to_retain, cron_slots_to_retain, workflows_to_retain,
-- jobs_of_run, batches_to_retain, jobs_of_batch, jobs_open_of_batch, signals_to_retain,
-- escalations_ended, incidents_to_retain, evidence_to_retain,
-- failure_minutes_to_retain, failure_hours_to_retain, task_ends_to_retain, task_deaths_to_retain,
-- task_minutes_to_retain, task_hours_by_hour,
-- failures_to_retain, operations_ended.
SELECT 'outputs', count(*) FROM opsjobs.outputs o WHERE created_at < %(outputs)s AND NOT EXISTS (
    SELECT FROM opsjobs.jobs j JOIN opsjobs.workflows w ON w.id = j.workflow_id AND w.ended_at IS NULL
    WHERE j.id = o.job_id)
UNION ALL
SELECT 'unique_locks', count(*) FROM opsjobs.unique_locks WHERE expires_at < %(unique_locks)s
UNION ALL
SELECT 'workers', count(*) FROM opsjobs.workers w
WHERE started_at < %(workers)s AND ended_at < %(workers)s
    AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j WHERE j.worker_id = w.id AND j.state = 'started' AND j.origin = 'opsjobs')
    AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j WHERE j.reserved_by = w.id AND j.state = 'queued' AND j.origin = 'opsjobs')
UNION ALL
SELECT 'loop_runs', count(*) FROM opsjobs.loop_runs WHERE last_at < %(loop_runs)s
UNION ALL
SELECT 'previews', count(*) FROM opsjobs.previews WHERE created_at < %(previews)s
UNION ALL
SELECT 'operation_rows', count(*) FROM opsjobs.operation_rows r
JOIN opsjobs.operations o ON o.id = r.operation_id
WHERE o.ended_at < CASE o.state WHEN 'expired' THEN %(now)s::timestamptz - interval '1 day'
    ELSE %(operation_rows)s END
UNION ALL
SELECT 'operations', count(*) FROM opsjobs.operations o
WHERE o.ended_at < CASE o.state WHEN 'expired' THEN %(now)s::timestamptz - interval '1 day'
    ELSE %(operations)s END
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
SELECT 'rq_places', count(*) FROM opsjobs.rq_places
WHERE greatest(looked_at, seen_at) < %(rq_places)s
UNION ALL
SELECT 'escalations', count(*) FROM opsjobs.escalations e
WHERE e.ended_at < %(escalations)s AND NOT EXISTS (
    SELECT FROM opsjobs.incidents i
    WHERE i.id = e.incident_id AND i.episode = e.episode AND i.state <> 'resolved')
UNION ALL
SELECT 'incidents', count(*) FROM opsjobs.incidents WHERE resolved_at < %(incidents)s
UNION ALL
SELECT 'evidence', count(*) FROM opsjobs.evidence e WHERE last_at < %(evidence)s AND NOT EXISTS (
    SELECT FROM opsjobs.incidents i WHERE i.id = e.incident_id AND i.resolved_at < %(incidents)s)
UNION ALL
SELECT 'pending_findings', count(*) FROM opsjobs.pending_findings WHERE seen_at < %(pending_findings)s
UNION ALL
SELECT 'failure_minutes', count(*) FROM opsjobs.failure_minutes WHERE minute < %(failure_minutes)s
UNION ALL
SELECT 'failure_hours', count(*) FROM opsjobs.failure_hours WHERE hour < %(failure_hours)s
UNION ALL
SELECT 'task_ends', count(*) FROM opsjobs.task_ends WHERE quarter < %(task_ends)s
UNION ALL
SELECT 'task_deaths', count(*) FROM opsjobs.task_deaths WHERE day < %(task_deaths)s
UNION ALL
SELECT 'task_minutes', count(*) FROM opsjobs.task_minutes WHERE minute < %(task_minutes)s
UNION ALL
SELECT 'task_hours', count(*) FROM opsjobs.task_hours WHERE hour > 'epoch' AND hour < %(task_hours)s
UNION ALL
SELECT 'deploys', count(*) FROM opsjobs.deploys d
WHERE at < %(deploys)s AND id < (SELECT max(id) FROM opsjobs.deploys) AND NOT EXISTS (
    SELECT FROM opsjobs.failures f
    WHERE d.id IN (f.first_deploy, f.last_deploy, f.resolved_in, f.resolved_after, f.regressed_in))
UNION ALL
SELECT 'failures', count(*) FROM opsjobs.failures WHERE last_at < %(failures)s
UNION ALL
SELECT 'finished jobs', count(*) FROM opsjobs.jobs
WHERE state = 'finished' AND ended_at < %(finished)s AND workflow_id IS NULL AND batch_id IS NULL
UNION ALL
SELECT 'canceled jobs', count(*) FROM opsjobs.jobs
WHERE state = 'canceled' AND ended_at < %(canceled)s AND workflow_id IS NULL AND batch_id IS NULL
UNION ALL
SELECT 'failed jobs', count(*) FROM opsjobs.jobs
WHERE state = 'failed' AND ended_at < %(failed)s AND workflow_id IS NULL AND batch_id IS NULL
UNION ALL
SELECT 'unknown jobs', count(*) FROM opsjobs.jobs
WHERE state = 'unknown' AND ended_at < %(unknown)s AND workflow_id IS NULL AND batch_id IS NULL
UNION ALL
SELECT 'jobs of ' || k.state || ' workflows', coalesce(sum(n.number), 0)
FROM (
    VALUES ('finished', %(finished)s), ('canceled', %(canceled)s), ('failed', %(failed)s)) AS k(state, before)
LEFT JOIN opsjobs.workflows w ON w.state = k.state AND w.ended_at < k.before AND NOT EXISTS (
    SELECT FROM opsjobs.jobs j WHERE j.workflow_id = w.id
      AND j.state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable'))
LEFT JOIN LATERAL (
    SELECT count(*) AS number FROM opsjobs.jobs j WHERE j.workflow_id = w.id) AS n ON true
GROUP BY k.state
UNION ALL
SELECT 'members of ' || k.state || ' batches', coalesce(sum(n.number), 0)
FROM (
    VALUES ('finished', %(finished)s), ('canceled', %(canceled)s), ('failed', %(failed)s)) AS k(state, before)
LEFT JOIN opsjobs.batches b ON b.state = k.state AND b.ended_at < k.before AND NOT EXISTS (
    SELECT FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.ended_at IS NULL)
LEFT JOIN LATERAL (
    SELECT count(*) AS number FROM opsjobs.jobs j WHERE j.batch_id = b.id) AS n ON true
GROUP BY k.state
UNION ALL
SELECT 'signals', count(*) FROM opsjobs.signals
WHERE at < %(signals)s AND (outcome IN ('taken', 'late') OR at < %(unmatched_signals)s)
