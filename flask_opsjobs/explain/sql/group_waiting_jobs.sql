-- Groups jobs that wait by all that decides their first reason: of each kind what decides of one job, the ids
-- of all, and the first and the last due time and deadline. Jobs of which a value of their own decides are
-- alone: handed back ones, and RQ jobs that depend on others. Which delivery is lost and who is next at a
-- limiter is found of each job later. LATERAL and OFFSET 0 let only jobs of workflows look for their steps,
-- and each kind for its one job. Locks nothing.
-- Rows: both.
-- Run by explain/kind_queries.py. Indexes: jobs_pkey, steps_pkey, workflows_pkey, edges_by_target.
WITH kinds AS MATERIALIZED (
    SELECT min(j.id) AS id, array_agg(j.id) AS ids,
        array_agg(j.dispatch_no) AS dispatch_nos, min(j.due_at) AS first_due,
        max(j.due_at) AS last_due, min(j.deadline_at) AS first_deadline, max(j.deadline_at) AS last_deadline
    FROM opsjobs.jobs j
    LEFT JOIN LATERAL (
        SELECT s.kind, s.opened_at, s.signals, w.state
        FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id
        WHERE j.workflow_id IS NOT NULL AND s.job_id = j.id OFFSET 0) AS s ON true
    LEFT JOIN LATERAL (
        SELECT count(*) > 0 AS is_behind, bool_or(b.id IS NULL) AS is_removed
        FROM opsjobs.edges e JOIN opsjobs.steps p ON p.job_id = e.from_id AND p.settled IS NULL
        LEFT JOIN opsjobs.jobs b ON b.id = e.from_id
        WHERE j.workflow_id IS NOT NULL AND j.state = 'deferred' AND e.to_id = j.id AND b.ended_at IS NULL
    ) AS before ON true
    WHERE j.id = ANY (%(ids)s::bigint[])
      AND j.state IN ('deferred', 'scheduled', 'available', 'queued', 'retryable')
    GROUP BY j.origin, j.state, j.task, j.queue, j.lane, j.limiter, j.partition, j.weight, j.reserved_by,
        j.cron_entry, j.deadline_at <= %(now)s, j.due_at > %(now)s, j.cancel_requested_at IS NULL,
        j.workflow_id IS NULL, s.kind, s.opened_at IS NULL, s.signals, s.state, before.is_behind,
        before.is_removed,
        CASE WHEN j.first_handed_back_at IS NOT NULL OR (j.origin = 'rq' AND j.state = 'deferred')
            THEN j.id END
)
SELECT k.ids, k.dispatch_nos, k.first_due, k.last_due, k.first_deadline, k.last_deadline, one.*
FROM kinds k
CROSS JOIN LATERAL (SELECT * FROM {job_evidence.sql} AS j WHERE j.id = k.id OFFSET 0) AS one
