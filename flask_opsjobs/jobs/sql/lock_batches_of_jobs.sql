-- Locks the batches that jobs are members of, in id order, before the jobs: nobody folds or ends them until
-- the commit. Waits for a fold, but not for transactions that add members.
-- Run by actions that retry jobs, in the transaction of an execution. Indexes: jobs_pkey, batches_pkey.
SELECT FROM opsjobs.batches
WHERE id IN (SELECT batch_id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]))
ORDER BY id FOR NO KEY UPDATE
