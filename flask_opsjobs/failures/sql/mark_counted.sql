-- Notes that attempts are counted, with the key under which they were, and the deploy of their worker.
-- Run by the roll_up loop, which has locked them. Index: attempts_pkey.
UPDATE opsjobs.attempts a SET is_counted = true, failure_key = c.key, deploy_id = c.deploy_id
FROM unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[], %(keys)s::bytea[], %(deploy_ids)s::bigint[])
    AS c(job_id, dispatch_no, key, deploy_id)
WHERE a.job_id = c.job_id AND a.dispatch_no = c.dispatch_no
