-- Lists the adopted jobs of one Redis that operators have deleted since a time, as the audit names them:
-- RQ's id, and when RQ created the job, since RQ uses an id again. The times of the audit go back by a minute
-- at most.
-- Run by the adopt loop, before it inserts jobs. Indexes: audit_by_time, audit_by_action, audit_events_pkey.
SELECT facts ->> 'rq_id', (facts ->> 'rq_created_at')::timestamptz
FROM opsjobs.audit_events e, jsonb_each(e.before) AS target (name, facts)
WHERE e.action = 'job.delete' AND e.outcome = 'done' AND e.at >= %(since)s
    AND facts ->> 'rq_place' = %(place)s
    AND e.sequence > coalesce((
        SELECT max(o.sequence) FROM opsjobs.audit_events o
        WHERE o.action = 'job.delete' AND o.at < %(since)s::timestamptz - interval '1 min'), 0)
