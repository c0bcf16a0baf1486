-- Reads those of these subjects that exist, each with its name for people and its newest note. Locks nothing.
-- Rows: both.
-- Run by actions, first for the plan and again under the lock. Indexes: jobs_pkey, workflows_pkey,
-- incidents_pkey, failures_pkey, workers_name_key, audit_notes.
SELECT asked.target, subject.label, newest.actor AS newest_actor, newest.reason AS newest_text
FROM (
    SELECT target, split_part(target, '/', 1) AS kind, substr(target, strpos(target, '/') + 1) AS name
    FROM unnest(%(targets)s::text[]) AS target
) AS asked
CROSS JOIN LATERAL (
    SELECT j.task AS label FROM opsjobs.jobs j
    WHERE j.id = CASE asked.kind WHEN 'job' THEN asked.name::bigint END
    UNION ALL
    SELECT w.name FROM opsjobs.workflows w
    WHERE w.id = CASE asked.kind WHEN 'workflow' THEN asked.name::bigint END
    UNION ALL
    SELECT i.class FROM opsjobs.incidents i
    WHERE i.id = CASE asked.kind WHEN 'incident' THEN asked.name::bigint END
    UNION ALL
    SELECT f.task FROM opsjobs.failures f
    WHERE f.id = CASE asked.kind WHEN 'failure' THEN asked.name::bigint END
    UNION ALL
    SELECT p.name FROM opsjobs.workers p
    WHERE p.name = CASE asked.kind WHEN 'worker' THEN asked.name END
) AS subject
LEFT JOIN LATERAL (
    SELECT e.actor, e.reason FROM opsjobs.audit_events e
    WHERE e.targets[1] = asked.target AND e.action = 'note.add' AND e.outcome = 'done'
    ORDER BY e.sequence DESC LIMIT 1
) AS newest ON true
