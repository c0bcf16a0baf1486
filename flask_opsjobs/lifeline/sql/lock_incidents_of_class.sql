-- Locks the incidents of a class that are not resolved, and those with the given fingerprints, in the order
-- of their fingerprints.
-- FOR UPDATE: two passes and an operator decide about an incident one after the other.
-- Run by each detecting pass. Indexes: incidents_active, incidents_fingerprint_key.
SELECT id, fingerprint, subject, severity, state, episode, first_at, opened_at, seen_at, missed_passes,
    affected, facts, acknowledged_until, acknowledged_severity, acknowledged_affected, resolved_at, because_of
FROM opsjobs.incidents
WHERE id IN (
    SELECT id FROM opsjobs.incidents WHERE class = %(class)s AND state <> 'resolved'
    UNION ALL
    SELECT id FROM opsjobs.incidents WHERE fingerprint = ANY (%(fingerprints)s::text[])
)
ORDER BY fingerprint FOR UPDATE
