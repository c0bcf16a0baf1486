-- Reads the last row of the audit's chain: its sequence, its hash and its time. Locks the head, so that one appender
-- follows the other and the sequence is in the order of commits. The last lock of a transaction. Run by audit.append.
-- Index: audit_head_pkey.
SELECT sequence, hash, at FROM opsjobs.audit_head WHERE id = 1 FOR UPDATE
