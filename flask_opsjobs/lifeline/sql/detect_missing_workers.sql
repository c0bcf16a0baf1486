-- Finds workers that the watcher gave up and that left jobs of ours, or that were given up in the last five
-- minutes. `jobs` are at most 101 of the started jobs that they left. `is_deploy`: there was a deploy within
-- five minutes. Reads all workers, since retention removes those that ended a week ago, and all deploys, of
-- which there are a few a day.
-- Not the process of the loops: silent loops are another class.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Index: jobs_started.
SELECT w.id, w.name, w.kind, w.host, w.heartbeat_at, w.ended_at, left_behind.jobs,
    EXISTS (
        SELECT FROM opsjobs.deploys d
        WHERE d.at BETWEEN w.ended_at - interval '5 min' AND w.ended_at + interval '5 min') AS is_deploy
FROM opsjobs.workers w
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(id ORDER BY id), '{}') AS jobs FROM (
        SELECT id FROM opsjobs.jobs
        WHERE worker_id = w.id AND state = 'started' AND origin = 'opsjobs' ORDER BY id LIMIT 101) AS started
) AS left_behind
WHERE w.state = 'missing' AND w.kind <> 'loops'
    AND (left_behind.jobs <> '{}' OR w.ended_at > %(now)s::timestamptz - interval '5 min')
ORDER BY w.ended_at, w.id
LIMIT %(limit)s
