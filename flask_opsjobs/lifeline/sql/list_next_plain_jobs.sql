-- Lists the next %(limit)s open adopted jobs after %(place)s and %(after)s: place, id, and whether it waits
-- for others.
-- Rows: rq.
-- Run by the loop detect. Index: jobs_open_of_rq.
SELECT rq_place, id, state = 'deferred' AS is_deferred FROM opsjobs.jobs
WHERE origin = 'rq' AND ended_at IS NULL AND (rq_place, id) > (%(place)s::text, %(after)s::bigint)
ORDER BY rq_place, id LIMIT %(limit)s
