-- Ends the acknowledgement of incidents: they are open again.
-- Run by a detecting pass and by actions, which have locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents
SET state = 'open', acknowledged_by = NULL, acknowledged_at = NULL, acknowledged_until = NULL,
    acknowledged_reason = NULL, acknowledged_severity = NULL, acknowledged_affected = NULL
WHERE id = ANY (%(ids)s::bigint[]) AND state = 'acknowledged'
