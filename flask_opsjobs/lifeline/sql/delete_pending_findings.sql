-- Deletes findings that are incidents now, or that were not found again.
-- Run by each detecting pass. Index: pending_findings_pkey.
WITH gone AS MATERIALIZED (
    SELECT fingerprint FROM opsjobs.pending_findings
    WHERE fingerprint = ANY (%(fingerprints)s::text[])
    ORDER BY fingerprint FOR UPDATE
)
DELETE FROM opsjobs.pending_findings p USING gone WHERE p.fingerprint = gone.fingerprint
