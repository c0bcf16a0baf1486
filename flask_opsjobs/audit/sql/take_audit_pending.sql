-- Takes what waits to be appended to the audit, the oldest first, at most %(limit)s: returns (id, decided_at, decision).
-- Removed in the transaction that appends it; SKIP LOCKED, because another one may be doing that.
-- Run by audit.append_pending. Index: audit_pending_pkey.
WITH oldest AS MATERIALIZED (
    SELECT id FROM opsjobs.audit_pending ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
taken AS (
    DELETE FROM opsjobs.audit_pending p USING oldest WHERE p.id = oldest.id
    RETURNING p.id, p.decided_at, p.decision
)
SELECT id, decided_at, decision FROM taken ORDER BY id
