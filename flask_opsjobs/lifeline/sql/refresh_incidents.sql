-- Notes that active incidents were found again. One whose cause is over follows from nothing any more.
-- Run by a detecting pass, which has locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents i
SET seen_at = %(now)s, seen_count = i.seen_count + 1, missed_passes = 0, severity = f.severity,
    affected = f.affected, facts = f.facts,
    because_of = (SELECT c.id FROM opsjobs.incidents c WHERE c.id = i.because_of AND c.state <> 'resolved')
FROM unnest(%(ids)s::bigint[], %(severities)s::text[], %(affected)s::bigint[], %(facts)s::jsonb[])
    AS f(id, severity, affected, facts)
WHERE i.id = f.id
