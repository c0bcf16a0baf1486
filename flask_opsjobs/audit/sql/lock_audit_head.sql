-- Reads the sequence, the hash and the time of the last row of the audit's chain. Locks the head, so that
-- appenders follow each other and sequences are in the order of commits. It is the last lock of a
-- transaction.
-- Run by audit.append. Index: audit_head_pkey.
SELECT sequence, hash, at FROM opsjobs.audit_head WHERE id = 1 FOR UPDATE
