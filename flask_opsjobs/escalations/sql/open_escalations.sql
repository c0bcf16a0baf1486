-- Begins escalations, each once for its incident, episode and event, and enqueues the job of each. Without
-- a policy, they are `unconfigured` and have no job. Returns the ids of those that are new, and with a
-- trace context also that of the job that the incident is about, if it is about one.
-- Rows: both.
-- Run by the loop escalate. Indexes: escalations_event_key, jobs_pkey.
WITH wanted AS MATERIALIZED (
    SELECT w.*, CASE WHEN %(is_configured)s THEN nextval('opsjobs.jobs_id_seq') END AS job_id
    FROM unnest(%(incidents)s::bigint[], %(episodes)s::int[], %(events)s::text[], %(repairs)s::jsonb[])
        AS w(incident_id, episode, event, repair)
), opened AS (
    INSERT INTO opsjobs.escalations (incident_id, episode, event, state, job_id, decided_at, ended_at, repair)
    SELECT w.incident_id, w.episode, w.event,
        CASE WHEN %(is_configured)s THEN 'pending' ELSE 'unconfigured' END, w.job_id, %(now)s,
        CASE WHEN %(is_configured)s THEN NULL ELSE %(now)s::timestamptz END, w.repair
    FROM wanted w JOIN opsjobs.incidents i ON i.id = w.incident_id
    ON CONFLICT DO NOTHING
    RETURNING id, job_id, incident_id
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    SELECT %(now)s, 'opsjobs', count(*), 'opsjobs.escalate'
    FROM opened WHERE job_id IS NOT NULL HAVING count(job_id) > 0
), enqueued AS (
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, priority, args, meta, tags, max_attempts,
        timeout_seconds, deadline_at, created_at, due_at{traced:, traceparent, tracestate})
    SELECT job_id, 'opsjobs.escalate', 'opsjobs', 'opsjobs', 'available', 0,
        jsonb_build_object('escalation', id), '{}', '{}', %(max_attempts)s, %(timeout_seconds)s,
        %(now)s::timestamptz + interval '1 day', %(now)s, %(now)s
        {traced:, %(traceparent)s::text, %(tracestate)s::text}
    FROM opened WHERE job_id IS NOT NULL
)
SELECT o.id{traced:, j.traceparent, j.tracestate}
FROM opened o JOIN opsjobs.incidents i ON i.id = o.incident_id
{traced: LEFT JOIN LATERAL (
    SELECT traceparent, tracestate FROM opsjobs.jobs
    WHERE id = substring(i.subject FROM '^job/(\d+)$')::bigint LIMIT 1
) AS j ON true}
ORDER BY o.id
