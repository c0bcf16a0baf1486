-- Writes what is shown of the payloads of adopted jobs. What was shown before stays when it cannot be read
-- now, such as a result that RQ has deleted. The caller has locked the jobs.
-- Rows: rq.
-- Run by the adopt loop. Index: rq_views_pkey.
INSERT INTO opsjobs.rq_views AS v (job_id, function, arguments, result)
SELECT id, function, arguments, result
FROM json_to_recordset(%(rows)s) AS s (id bigint, function text, arguments text, result text)
ON CONFLICT (job_id) DO UPDATE SET
    function = coalesce(excluded.function, v.function),
    arguments = coalesce(excluded.arguments, v.arguments), result = coalesce(excluded.result, v.result)
WHERE (v.function, v.arguments, v.result) IS DISTINCT FROM (coalesce(excluded.function, v.function),
    coalesce(excluded.arguments, v.arguments), coalesce(excluded.result, v.result))
