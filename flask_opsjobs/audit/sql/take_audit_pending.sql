-- Takes decisions that wait to be appended to the audit, oldest first, at most %(limit)s: (id, decided_at,
-- decision). Deletes them in the transaction that appends them. SKIP LOCKED, since another transaction may be
-- appending them too.
-- Run by audit.append_pending. Index: audit_pending_pkey.
WITH oldest AS MATERIALIZED (
    SELECT id FROM opsjobs.audit_pending ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
taken AS (
    DELETE FROM opsjobs.audit_pending p USING oldest WHERE p.id = oldest.id
    RETURNING p.id, p.decided_at, p.decision
)
SELECT id, decided_at, decision FROM taken ORDER BY id
