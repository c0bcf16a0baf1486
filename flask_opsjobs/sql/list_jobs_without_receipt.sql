-- Which of these jobs have a key whose receipt another job has, or none. Locks nothing.
-- Run by the doorway after it took receipts. Indexes: jobs_pkey, receipts_pkey.
SELECT j.id FROM opsjobs.jobs j
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.unique_key IS NOT NULL
    AND NOT EXISTS (SELECT FROM opsjobs.receipts r WHERE r.key = j.unique_key AND r.job_id = j.id)
ORDER BY j.id
