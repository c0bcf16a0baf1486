-- Lists the largest decisions about jobs that were executed since %(since)s, at most %(groups)s of each
-- action: sequence, time, actor, action, number of jobs; the number of all jobs of the action; and whether
-- there may be more decisions than were read: the last %(most)s of any kind. The number is that of the jobs
-- in `after` that were not skipped, or of the targets when `after` is missing; of an operation, that of the
-- jobs that it has changed so far. Locks nothing.
-- Run by overview/queries.py. Indexes: audit_events_pkey, audit_head_pkey, operations_pkey.
WITH examined AS MATERIALIZED (
    SELECT sequence, at, actor, action, outcome, subject, targets, after FROM opsjobs.audit_events
    WHERE sequence BETWEEN 1
        AND coalesce((SELECT h.sequence FROM opsjobs.audit_head h WHERE h.id = 1), 9223372036854775807)
    ORDER BY sequence DESC LIMIT %(most)s
), counted AS (
    SELECT sequence, at, actor, action,
        CASE jsonb_typeof(after) WHEN 'object' THEN (
                SELECT count(*) FROM jsonb_each(after) AS of (target, facts)
                WHERE target LIKE 'job/%%' AND NOT facts ? 'skipped')
            ELSE cardinality(targets) END AS number
    FROM examined WHERE outcome = 'done' AND at > %(since)s AND action LIKE 'job.%%'
    UNION ALL
    SELECT e.sequence, e.at, e.actor, o.action,
        o.done + o.asked + o.proven + o.failed_same_error + o.failed_other_error + o.unproven
    FROM examined e JOIN opsjobs.operations o ON o.id = substr(e.subject, 11)::bigint
    WHERE e.outcome = 'done' AND e.at > %(since)s AND e.action = 'operation.start'
), ranked AS (
    SELECT *, (sum(number) OVER (PARTITION BY action))::bigint AS of_action,
        row_number() OVER (PARTITION BY action ORDER BY number DESC, sequence DESC) AS place
    FROM counted
)
SELECT sequence, at, actor, action, number, of_action,
    (SELECT count(*) >= %(most)s AND min(at) > %(since)s FROM examined) AS is_cut
FROM ranked WHERE place <= %(groups)s ORDER BY number DESC, sequence DESC
