-- Begins the next episode of incidents that were resolved.
-- Run by a detecting pass, which has locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents i
SET state = 'open', episode = i.episode + 1, opened_at = greatest(f.opened_at, i.first_at),
    seen_at = %(now)s, seen_count = i.seen_count + 1, missed_passes = 0, severity = f.severity,
    affected = f.affected, facts = f.facts, because_of = %(because_of)s,
    deploy_id = (SELECT max(id) FROM opsjobs.deploys), resolved_at = NULL,
    resolved_by = NULL
FROM unnest(%(ids)s::bigint[], %(severities)s::text[], %(opened_ats)s::timestamptz[],
    %(affected)s::bigint[], %(facts)s::jsonb[]) AS f(id, severity, opened_at, affected, facts)
WHERE i.id = f.id AND i.state = 'resolved'
