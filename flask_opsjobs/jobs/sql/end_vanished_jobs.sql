-- Ends adopted jobs whose records in Redis are gone before anybody saw their end, and their runs. Their
-- end is after the last look, and after the last time that is known of the job. Returns a row for each.
-- The caller has locked the jobs. Leaves out those that a newer look or a worker has changed.
-- Rows: rq.
-- Run by the adopt loop. Indexes: jobs_pkey, rq_facts_pkey, attempts_pkey.
WITH gone AS (
    UPDATE opsjobs.rq_facts f SET structure = NULL, changed_at = %(looked_at)s, ended_source = 'observer',
        ended_after = least(%(now)s, greatest(%(before)s::timestamptz, CASE WHEN %(before)s IS NOT NULL
            THEN greatest(j.created_at, j.dispatched_at, j.started_at) END))
    FROM opsjobs.jobs j
    WHERE f.job_id = ANY (%(ids)s::bigint[]) AND f.changed_at <= %(looked_at)s AND j.id = f.job_id
    RETURNING f.job_id
), runs AS (
    UPDATE opsjobs.attempts a SET ended_at = %(now)s, outcome = 'lost', death_facts = jsonb_build_object(
        'ended_after', least(%(now)s, greatest(%(before)s::timestamptz, a.started_at)))
    FROM gone
    WHERE a.job_id = gone.job_id AND a.ended_at IS NULL AND a.worker_id IS NULL
)
UPDATE opsjobs.jobs j SET state = 'unknown', ended_at = %(now)s, ended_by = 'unseen' FROM gone
WHERE j.id = gone.job_id
