-- Finds what bears exactly this name: tasks, queues, workers, cron entries, limiters, deploys, actors of the
-- audit, the newest workflow and batch of the name, and plain jobs by RQ's id. One row for each.
-- Rows: both.
-- Locks nothing.
-- Run by forensics/name_queries.py. Indexes: jobs_by_task, jobs_by_queue, jobs_of_rq, queues_pkey,
-- workers_name_key, cron_entries_pkey, limiters_pkey, deploys_by_version, audit_by_actor,
-- workflows_by_name, batches_by_name.
SELECT * FROM (
    (SELECT 'job' AS kind, id::text AS key FROM opsjobs.jobs
        WHERE origin = 'rq' AND rq_place = ANY(%(places)s) AND rq_id = %(name)s LIMIT 5)
    UNION ALL
    (SELECT 'task', task FROM opsjobs.jobs WHERE task = %(name)s ORDER BY task, id LIMIT 1)
    UNION ALL
    (SELECT 'queue', %(name)s WHERE EXISTS (SELECT FROM opsjobs.queues WHERE name = %(name)s)
        OR EXISTS (SELECT FROM opsjobs.jobs WHERE queue = %(name)s ORDER BY queue, id LIMIT 1))
    UNION ALL
    (SELECT 'worker', name FROM opsjobs.workers WHERE name = %(name)s LIMIT 1)
    UNION ALL
    (SELECT 'cron', name FROM opsjobs.cron_entries WHERE name = %(name)s)
    UNION ALL
    (SELECT 'limiter', name FROM opsjobs.limiters WHERE name = %(name)s)
    UNION ALL
    (SELECT 'deploy', id::text FROM opsjobs.deploys WHERE version = %(name)s
        ORDER BY version, id DESC LIMIT 1)
    UNION ALL
    (SELECT 'workflow', id::text FROM opsjobs.workflows WHERE name = %(name)s ORDER BY name, id DESC LIMIT 1)
    UNION ALL
    (SELECT 'batch', id::text FROM opsjobs.batches WHERE name = %(name)s ORDER BY name, id DESC LIMIT 1)
    UNION ALL
    (SELECT 'actor', actor FROM opsjobs.audit_events WHERE actor = %(name)s ORDER BY actor, sequence LIMIT 1)
) AS named
