-- Reads the failures with these keys. Locks them in id order.
-- Run by the roll_up loop. Index: failures_key_key.
SELECT id, key, state, title, last_at, decided_at, resolved_in, resolved_after
FROM opsjobs.failures WHERE key = ANY (%(keys)s::bytea[]) ORDER BY id FOR UPDATE
