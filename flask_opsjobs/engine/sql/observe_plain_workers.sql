-- Records the plain RQ workers that were seen in Redis: registers new ones and updates known ones. RQ
-- considers such a worker alive until `heartbeat_at` plus `counts.rq_ttl_seconds`. Children of our workers
-- are in Redis too, and are not among these names. A row of a worker of ours is left alone all the same.
-- Run by the observe loop. Index: workers_name_key.
INSERT INTO opsjobs.workers AS w
    (name, kind, host, pid, version, queues, state, started_at, heartbeat_at, counts, ended_at,
        jobs_finished, jobs_failed, work_seconds)
SELECT name, 'plain', host, pid, 'rq ' || version, string_to_array(queues, ','),
    CASE WHEN has_left THEN 'stopped' ELSE 'alive' END, %(now)s, %(now)s,
    jsonb_build_object('rq_ttl_seconds', ttl_seconds),
    CASE WHEN has_left THEN %(now)s::timestamptz END, jobs_finished, jobs_failed, work_seconds
FROM unnest(%(names)s::text[], %(hosts)s::text[], %(pids)s::int[], %(versions)s::text[],
    %(queues)s::text[], %(ttls)s::float8[], %(left)s::bool[], %(finished)s::bigint[], %(failed)s::bigint[],
    %(seconds)s::float8[])
    AS seen(name, host, pid, version, queues, ttl_seconds, has_left, jobs_finished, jobs_failed, work_seconds)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET
    heartbeat_no = w.heartbeat_no + 1, heartbeat_at = excluded.heartbeat_at, state = excluded.state,
    ended_at = CASE WHEN excluded.state = 'stopped' THEN coalesce(w.ended_at, excluded.ended_at) END,
    forgotten_at = CASE WHEN excluded.state = 'stopped' THEN w.forgotten_at END,
    queues = CASE WHEN excluded.queues = '{}' THEN w.queues ELSE excluded.queues END,
    version = coalesce(excluded.version, w.version), counts = w.counts || excluded.counts,
    jobs_finished = excluded.jobs_finished, jobs_failed = excluded.jobs_failed,
    work_seconds = excluded.work_seconds
WHERE w.kind = 'plain'
