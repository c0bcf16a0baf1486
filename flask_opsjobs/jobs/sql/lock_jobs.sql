-- Locks jobs in id order, and before them the runs that they are steps of; between the two also their
-- batches, for those who may reopen one: nobody folds or ends them until the commit. All statements lock in
-- this order, so that an operator, an `advance`, a fold and a worker's flush cannot deadlock: Postgres counts
-- the locked rows of one kind before it looks at the next. Returns empty rows: the caller reads the jobs with
-- the next statement, which sees commits made while this one waited. Does not wait for transactions that add
-- members to a batch.
-- Rows: both.
-- Run by actions, in the transaction of an execution. Indexes: jobs_pkey, workflows_pkey, batches_pkey.
WITH runs AS MATERIALIZED (
    SELECT FROM opsjobs.workflows
    WHERE id IN (SELECT workflow_id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]))
    ORDER BY id FOR NO KEY UPDATE
), batches AS MATERIALIZED (
    SELECT FROM opsjobs.batches
    WHERE %(with_batches)s AND (SELECT count(*) FROM runs) >= 0
      AND id IN (SELECT batch_id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]))
    ORDER BY id FOR NO KEY UPDATE
)
SELECT FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND (SELECT count(*) FROM runs) >= 0
    AND (SELECT count(*) FROM batches) >= 0
ORDER BY id FOR UPDATE
