-- Lists members of a batch that ended in one of these states, the oldest first, each with the key of its
-- unique lock if it is unique until it ends. At most %(limit)s of each state whose lock no other job holds;
-- and among the oldest %(limit)s those whose lock another job holds, with that job. Locks nothing.
-- Rows: opsjobs, by their batches.
-- Run by actions, first for the preview and again under the batch's lock. Indexes: jobs_of_batch,
-- unique_locks_pkey.
SELECT m.id, m.key, m.holder FROM unnest(%(states)s::text[]) AS s(state) CROSS JOIN LATERAL (
    (SELECT j.id, CASE j.unique_until WHEN 'ended' THEN j.unique_key END AS key, NULL::bigint AS holder
    FROM opsjobs.jobs j
    WHERE j.batch_id = %(id)s AND j.state = s.state
      AND NOT (coalesce(j.unique_until, '') = 'ended' AND EXISTS (
        SELECT FROM opsjobs.unique_locks u WHERE u.key = j.unique_key AND u.job_id <> j.id
          AND (u.expires_at IS NULL OR u.expires_at > %(now)s)))
    ORDER BY j.id LIMIT %(limit)s)
    UNION ALL
    SELECT o.id, o.unique_key, u.job_id FROM (
        SELECT j.id, j.unique_key, j.unique_until FROM opsjobs.jobs j
        WHERE j.batch_id = %(id)s AND j.state = s.state
        ORDER BY j.id LIMIT %(limit)s) AS o
    JOIN opsjobs.unique_locks u ON u.key = o.unique_key AND u.job_id <> o.id
        AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
    WHERE o.unique_until = 'ended') AS m
ORDER BY m.id
