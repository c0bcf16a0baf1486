-- Finds the head of the audit's chain, and the rows outside 1 to the head: their number (up to 2,000), the
-- first one after the head, and the lowest of all. Returns (sequence, hash, outside, behind, lowest) from one
-- snapshot, or no row without a head. Locks nothing. Run to verify, and by pages. Indexes: audit_head_pkey,
-- audit_events_pkey.
SELECT h.sequence, h.hash, found.outside, found.behind, found.lowest
FROM opsjobs.audit_head h
CROSS JOIN LATERAL (
    SELECT count(*) AS outside,
        min(sequence) FILTER (WHERE sequence > h.sequence) AS behind,
        min(sequence) AS lowest
    FROM (
        (SELECT sequence FROM opsjobs.audit_events WHERE sequence < 1 ORDER BY sequence LIMIT 1000)
        UNION ALL
        (SELECT sequence FROM opsjobs.audit_events WHERE sequence > h.sequence ORDER BY sequence LIMIT 1000)
    ) AS rows_outside
) AS found
WHERE h.id = 1
