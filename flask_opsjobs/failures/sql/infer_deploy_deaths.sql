-- Gives deaths around a deploy the cause `deploy`: a process that was killed from outside, or a worker that
-- vanished, from 10 min before to 2 min after the marker, when a worker of the deploy was seen on one of its
-- queues. The death of a worker of that same deploy is none. A worker that vanished died at its last
-- heartbeat. Moves the sums of counted deaths too. Returns how many deaths it changed. Locks the attempts;
-- those that are locked are left to a later pass. Looks at the newest deploys, and at deaths since %(since)s.
-- Rows: both.
-- Run by the roll_up loop. Indexes: attempts_by_death, workers_pkey, task_deaths_pkey.
WITH recent AS MATERIALIZED (
    SELECT id, version, at FROM (
        SELECT id, version, at FROM opsjobs.deploys ORDER BY id DESC LIMIT 10) AS newest
    WHERE at > %(since)s
), found AS MATERIALIZED (
    SELECT a.job_id, a.dispatch_no, a.death AS was, a.ended_at, a.is_counted, a.outcome, j.task, d.id,
        d.version
    FROM unnest(ARRAY['signal', 'vanished']) AS causes(death)
    JOIN opsjobs.attempts a ON a.death = causes.death AND a.ended_at > %(since)s
        AND EXISTS (SELECT FROM recent)
    JOIN opsjobs.jobs j ON j.id = a.job_id
    JOIN opsjobs.workers w ON w.id = a.worker_id
    JOIN LATERAL (
        SELECT d.id, d.version FROM recent d
        WHERE CASE a.death WHEN 'vanished' THEN least(a.ended_at, w.heartbeat_at) ELSE a.ended_at END
                BETWEEN d.at - interval '10 min' AND d.at + interval '2 min'
            AND w.deploy_id IS DISTINCT FROM d.id
            AND EXISTS (
                SELECT FROM opsjobs.workers s WHERE s.deploy_id = d.id AND s.queues && w.queues)
        ORDER BY d.id DESC LIMIT 1
    ) AS d ON true
    FOR UPDATE OF a SKIP LOCKED
), changed AS (
    UPDATE opsjobs.attempts a SET death = 'deploy', death_facts = coalesce(a.death_facts, '{}')
        || jsonb_build_object('was', f.was, 'deploy', f.id, 'version', f.version),
        -- As `key_of_end` of jobs/failure_key.py makes it. What is counted keeps the key of its failure.
        failure_key = CASE WHEN a.is_counted THEN a.failure_key
            ELSE '\x01'::bytea || substr(sha256(convert_to(
                concat_ws(E'\n', f.task, 'end', f.outcome, 'deploy'), 'UTF8')), 1, 15) END
    FROM found f WHERE a.job_id = f.job_id AND a.dispatch_no = f.dispatch_no
), sums AS (
    SELECT task, date_trunc('day', ended_at, 'UTC') AS day, was, count(*) AS number
    FROM found WHERE is_counted GROUP BY 1, 2, 3
), taken AS (
    UPDATE opsjobs.task_deaths t SET number = t.number - s.number
    FROM sums s WHERE t.task = s.task AND t.day = s.day AND t.death = s.was
), given AS (
    INSERT INTO opsjobs.task_deaths AS t (task, day, death, number)
    SELECT task, day, 'deploy', sum(number) FROM sums GROUP BY 1, 2
    ON CONFLICT (task, day, death) DO UPDATE SET number = t.number + excluded.number
)
SELECT count(*) FROM found
