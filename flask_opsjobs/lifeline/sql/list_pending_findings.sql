-- Lists what a class found that is no incident yet: fingerprint, when it was first and last seen.
-- Run by each detecting pass. The table holds what was found in the last passes, and is read whole.
SELECT fingerprint, first_at, seen_at FROM opsjobs.pending_findings WHERE class = %(class)s
