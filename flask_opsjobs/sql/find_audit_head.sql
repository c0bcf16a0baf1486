-- The head of the audit's chain, and the highest sequence that any row has, of one snapshot: (sequence, hash, last).
-- No row when the head is gone. Locks nothing. Run to verify. Indexes: audit_head_pkey, audit_events_pkey.
SELECT h.sequence, h.hash,
    coalesce((SELECT sequence FROM opsjobs.audit_events ORDER BY sequence DESC LIMIT 1), 0) AS last_sequence
FROM opsjobs.audit_head h WHERE h.id = 1
