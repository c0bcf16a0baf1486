-- Lists the decisions about jobs that were executed since %(since)s, among the last %(most)s decisions of any
-- kind, newest first: sequence, time, actor, action, number of jobs; and whether there may be more than were
-- read. The number is that of the jobs in `after`, or of the targets when `after` is missing. Locks nothing.
-- Run by overview/queries.py. Indexes: audit_events_pkey, audit_head_pkey.
WITH examined AS MATERIALIZED (
    SELECT sequence, at, actor, action, outcome, targets, after FROM opsjobs.audit_events
    WHERE sequence BETWEEN 1
        AND coalesce((SELECT h.sequence FROM opsjobs.audit_head h WHERE h.id = 1), 9223372036854775807)
    ORDER BY sequence DESC LIMIT %(most)s
)
SELECT sequence, at, actor, action,
    CASE jsonb_typeof(after) WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys(after))
        ELSE cardinality(targets) END AS number,
    (SELECT count(*) >= %(most)s AND min(at) > %(since)s FROM examined) AS is_cut
FROM examined WHERE outcome = 'done' AND at > %(since)s AND action LIKE 'job.%%'
ORDER BY sequence DESC
