-- Counts, for each of the jobs %(ids)s, the due jobs of its lane that are dispatched before it, by priority,
-- due time and id, and adds up their weights. Reads only the front of each of %(lanes)s, as many jobs as
-- %(most)s says of it, or, where it says nothing, one more than its limiter in %(limiters)s has room for at
-- most; without jobs that are too heavy for the limiter ever to start. Locks nothing.
-- Rows: opsjobs, since no other is available.
-- Run by explain/queries.py. Indexes: jobs_due, jobs_pkey, limiters_pkey.
WITH front AS MATERIALIZED (
    SELECT f.* FROM unnest(%(lanes)s::text[], %(limiters)s::text[], %(most)s::int[]) AS l(lane, limiter, most)
    LEFT JOIN LATERAL (
        SELECT least(burst, concurrency) AS weight FROM opsjobs.limiters WHERE name = l.limiter
    ) AS heaviest ON true
    CROSS JOIN LATERAL (
        SELECT lane, priority, due_at, id, j.weight FROM opsjobs.jobs j
        WHERE lane = l.lane AND state = 'available'
          AND (heaviest.weight IS NULL OR j.weight <= heaviest.weight)
        ORDER BY priority, due_at, id
        LIMIT coalesce(l.most, least(heaviest.weight + 1, 1000))) AS f
), merged AS (
    SELECT lane, priority, due_at, id, 1 AS number, coalesce(weight, 0) AS weight, false AS is_asked
    FROM front
    UNION ALL
    SELECT lane, priority, due_at, id, 0, 0, true FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[])
)
SELECT id, number, weight FROM (
    SELECT id, is_asked, coalesce(sum(number) OVER before, 0) AS number,
        coalesce(sum(weight) OVER before, 0)::bigint AS weight
    FROM merged
    WINDOW before AS (
        PARTITION BY lane ORDER BY priority, due_at, id, is_asked DESC
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS counted
WHERE is_asked
