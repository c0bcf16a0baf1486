-- The last row of the audit's chain: its sequence and its hash. Locks it, so that one appender follows the other and the
-- sequence is in the order of commits. The last lock of a transaction. Run by audit.append. Index: audit_head_pkey.
SELECT sequence, hash FROM opsjobs.audit_head WHERE id = 1 FOR UPDATE
