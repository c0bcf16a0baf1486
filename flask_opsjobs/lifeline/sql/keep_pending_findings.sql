-- Keeps findings that have not been so for long enough, by fingerprint, with when each was first seen.
-- Run by each detecting pass. Index: pending_findings_pkey.
INSERT INTO opsjobs.pending_findings AS p (fingerprint, class, first_at, seen_at)
SELECT f.fingerprint, %(class)s, f.first_at, greatest(f.first_at, %(now)s)
FROM unnest(%(fingerprints)s::text[], %(first_ats)s::timestamptz[]) AS f(fingerprint, first_at)
ORDER BY f.fingerprint
ON CONFLICT (fingerprint) DO UPDATE SET first_at = excluded.first_at, seen_at = excluded.seen_at
