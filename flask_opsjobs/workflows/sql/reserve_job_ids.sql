-- Reserves ids for jobs, in ascending order.
-- Run in the host's transaction by `start`.
SELECT ARRAY(SELECT nextval('opsjobs.jobs_id_seq') FROM generate_series(1, %(number)s::int)) AS ids
