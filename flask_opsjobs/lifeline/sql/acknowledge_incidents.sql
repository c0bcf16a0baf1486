-- Acknowledges incidents until a time. Keeps how severe they are and how many are affected: when that gets
-- worse, the acknowledgement ends.
-- Run by actions, which have locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents
SET state = 'acknowledged', acknowledged_by = %(actor)s, acknowledged_at = %(now)s,
    acknowledged_until = %(until)s, acknowledged_reason = %(reason)s, acknowledged_severity = severity,
    acknowledged_affected = affected
WHERE id = ANY (%(ids)s::bigint[]) AND state <> 'resolved'
