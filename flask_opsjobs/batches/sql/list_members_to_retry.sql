-- Lists members of a batch that ended in one of these states, the oldest first, except those whose unique
-- lock another job holds. Locks nothing.
-- Run by actions, under the batch's lock. Indexes: jobs_of_batch, unique_locks_pkey.
SELECT m.id FROM unnest(%(states)s::text[]) AS s(state) CROSS JOIN LATERAL (
    SELECT j.id FROM opsjobs.jobs j
    WHERE j.batch_id = %(id)s AND j.state = s.state
      AND NOT (coalesce(j.unique_until, '') = 'ended' AND EXISTS (
        SELECT FROM opsjobs.unique_locks u WHERE u.key = j.unique_key AND u.job_id <> j.id
          AND (u.expires_at IS NULL OR u.expires_at > %(now)s)))
    ORDER BY j.id LIMIT %(limit)s) AS m
ORDER BY m.id LIMIT %(limit)s
