-- Ends incidents, each with who ended it.
-- Run by a detecting pass and by actions, which have locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents i
SET state = 'resolved', resolved_at = greatest(%(now)s, i.opened_at), resolved_by = f.by,
    acknowledged_by = NULL, acknowledged_at = NULL, acknowledged_until = NULL,
    acknowledged_reason = NULL, acknowledged_severity = NULL, acknowledged_affected = NULL
FROM unnest(%(ids)s::bigint[], %(bys)s::text[]) AS f(id, by)
WHERE i.id = f.id AND i.state <> 'resolved'
