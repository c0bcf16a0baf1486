-- Opens incidents that were never seen before; returns id and subject of each. One that another pass has
-- opened meanwhile is left to the next pass.
-- Run by a detecting pass. Index: incidents_fingerprint_key.
INSERT INTO opsjobs.incidents
    (class, subject, fingerprint, severity, state, first_at, opened_at, seen_at, affected, facts, because_of,
    deploy_id)
SELECT %(class)s, f.subject, f.fingerprint, f.severity, 'open', f.opened_at, f.opened_at, %(now)s,
    f.affected, f.facts, %(because_of)s, (SELECT max(id) FROM opsjobs.deploys)
FROM unnest(%(subjects)s::text[], %(fingerprints)s::text[], %(severities)s::text[],
    %(opened_ats)s::timestamptz[], %(affected)s::bigint[], %(facts)s::jsonb[])
    AS f(subject, fingerprint, severity, opened_at, affected, facts)
ORDER BY f.fingerprint
ON CONFLICT (fingerprint) DO NOTHING
RETURNING id, subject
