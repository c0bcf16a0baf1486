-- Removes findings that were last seen before %(before)s, at most %(limit)s.
-- Run by the retain loop and by `flask opsjobs retain`. The table is small, and is read whole.
WITH old AS MATERIALIZED (
    SELECT fingerprint FROM opsjobs.pending_findings WHERE seen_at < %(before)s
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.pending_findings p USING old WHERE p.fingerprint = old.fingerprint
