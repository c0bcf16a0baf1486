-- Lists the failures that need somebody, open ones before ignored ones: new ones and ones that are back since
-- %(fresh_since)s first, then those by which most jobs failed, at most %(most)s. Also the versions of the
-- deploys in which each was first seen and came back; whether an incident is or was about it; and how many of
-- those that were read are open with failed jobs. Reads the %(examined)s of each state that failed last; the
-- state is a range instead of an equality, so that only the index failures_by_state has the order. Locks
-- nothing.
-- Run by overview/failure_queries.py. Indexes: failures_by_state, deploys_pkey, incidents_fingerprint_key.
WITH examined AS MATERIALIZED (
    SELECT failure.* FROM unnest(ARRAY['open', 'ignored']) AS states (state), LATERAL (
        SELECT id, task, type, title, state, number, jobs, first_at, last_at, first_deploy, created_at,
            regressed_at, regressed_in, ignored_until
        FROM opsjobs.failures AS f
        WHERE (f.state, f.last_at) <= (states.state, 'infinity') AND f.state >= states.state
        ORDER BY f.state DESC, f.last_at DESC LIMIT %(examined)s
    ) AS failure
), worst AS (
    SELECT *, state = 'open' AND jobs > 0
            AND greatest(created_at, regressed_at) >= %(fresh_since)s::timestamptz AS is_fresh,
        count(*) FILTER (WHERE state = 'open' AND jobs > 0) OVER () AS many
    FROM examined ORDER BY state DESC, is_fresh DESC, jobs DESC, number DESC, last_at DESC LIMIT %(most)s
)
SELECT worst.id, worst.task, worst.type, worst.title, worst.state, worst.number, worst.jobs, worst.first_at,
    worst.last_at, worst.regressed_at, worst.ignored_until, worst.is_fresh,
    (SELECT version FROM opsjobs.deploys AS d WHERE d.id = worst.first_deploy) AS first_in,
    (SELECT version FROM opsjobs.deploys AS d WHERE d.id = worst.regressed_in) AS regressed_in,
    EXISTS (
        SELECT FROM opsjobs.incidents AS i
        WHERE i.fingerprint IN ('failure_new:failure/' || worst.id, 'failure_regressed:failure/' || worst.id)
    ) AS has_incident,
    worst.many
FROM worst
ORDER BY worst.state DESC, worst.is_fresh DESC, worst.jobs DESC, worst.number DESC, worst.last_at DESC
