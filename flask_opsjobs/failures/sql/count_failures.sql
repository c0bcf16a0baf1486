-- Adds to failures what a pass has counted; a key that is new becomes a failure, and begins `open`. The
-- newest attempt becomes the sample. An attempt may be recorded long after it ended: then it moves only
-- `first_at` and the numbers. Returns the ids by key.
-- Run by the roll_up loop, which has locked the rows. Index: failures_key_key.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(failures)s::jsonb) AS g(key text, task text, type text, title text,
        raised_in text, job_id bigint, dispatch_no bigint, number bigint, jobs bigint,
        job_failed_at timestamptz, first_at timestamptz, last_at timestamptz, first_deploy bigint,
        last_deploy bigint)
)
INSERT INTO opsjobs.failures AS f (key, task, type, title, raised_in, sample_job_id, sample_dispatch_no,
    created_at, number, jobs, job_failed_at, first_at, last_at, first_deploy, last_deploy)
SELECT decode(key, 'hex'), task, type, title, raised_in, job_id, dispatch_no, %(now)s, number, jobs,
    job_failed_at, first_at, last_at, first_deploy, last_deploy
FROM given ORDER BY first_at, key
ON CONFLICT (key) DO UPDATE SET
    title = excluded.title,
    sample_job_id = CASE WHEN excluded.last_at >= f.last_at THEN excluded.sample_job_id
        ELSE f.sample_job_id END,
    sample_dispatch_no = CASE WHEN excluded.last_at >= f.last_at THEN excluded.sample_dispatch_no
        ELSE f.sample_dispatch_no END,
    number = f.number + excluded.number,
    jobs = f.jobs + excluded.jobs,
    job_failed_at = greatest(f.job_failed_at, excluded.job_failed_at),
    first_at = least(f.first_at, excluded.first_at),
    last_at = greatest(f.last_at, excluded.last_at),
    first_deploy = least(f.first_deploy, excluded.first_deploy),
    last_deploy = greatest(f.last_deploy, excluded.last_deploy)
RETURNING key, id
