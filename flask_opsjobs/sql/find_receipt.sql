-- Finds the living receipt of a call, under any of its keys, and the state of the job that it stands for; the state is
-- null when that job's row is gone. No row: it was released, or has expired.
-- The receipts of %(id)s do not count: while secret keys are rotated, a call that met another job under one key has just
-- taken its other key for that id, and records no job.
-- No lock. Run in the host's transaction after an insert that met it. Index: receipts_pkey, jobs_pkey.
SELECT r.job_id, j.state
FROM opsjobs.receipts r LEFT JOIN opsjobs.jobs j ON j.id = r.job_id
WHERE r.key = ANY (%(keys)s::bytea[]) AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp())
    AND r.job_id IS DISTINCT FROM %(id)s::bigint
ORDER BY array_position(%(keys)s::bytea[], r.key) LIMIT 1
