-- Ends drafts that nobody started in time. SKIP LOCKED: somebody starts that draft right now.
-- Run by the loop operate. Index: operations_open.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.operations WHERE state = 'draft' AND expires_at <= %(now)s
    ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED
)
UPDATE opsjobs.operations o SET state = 'expired', ended_at = %(now)s FROM old WHERE o.id = old.id
