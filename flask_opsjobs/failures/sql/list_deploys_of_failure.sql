-- Lists the newest deploys, at most %(most)s, the newest first: id, version, time; how many attempts failed
-- as the failure on workers of the deploy; how many jobs of the task finished in the quarters that lie
-- between the deploy and the next one as a whole, null for a deploy before %(since)s; and whether it is the
-- newest one. Locks nothing.
-- Run by failures/queries.py. Indexes: deploys_pkey, failure_deploys_pkey, task_ends_pkey.
WITH newest AS (
    SELECT id, version, at, lag(at) OVER (ORDER BY id DESC) AS next_at
    FROM (SELECT id, version, at FROM opsjobs.deploys ORDER BY id DESC LIMIT %(most)s) AS deploys
)
SELECT newest.id, newest.version, newest.at, coalesce(counted.number, 0) AS failed,
    CASE WHEN newest.at >= %(since)s THEN (
        SELECT coalesce(sum(finished), 0)::bigint FROM opsjobs.task_ends
        WHERE task = %(task)s AND quarter >= newest.at
            AND quarter <= coalesce(newest.next_at - interval '15 minutes', 'infinity')
    ) END AS finished, newest.next_at IS NULL AS is_newest
FROM newest LEFT JOIN opsjobs.failure_deploys AS counted
    ON counted.failure_id = %(failure_id)s AND counted.deploy_id = newest.id
ORDER BY newest.id DESC
