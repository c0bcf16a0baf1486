-- Notes a loop's pass: extends the stretch in which it was awake, or begins one after a gap of three intervals.
-- A clock that was stepped back begins a new one too. Returns the stretch's id.
-- `is_idle` makes the commit asynchronous: nothing depends on a pass that did nothing.
-- Run by each loop after each pass, in its transaction when it has one. Index: loop_runs_pkey.
WITH hurried AS MATERIALIZED (
    SELECT CASE WHEN %(is_idle)s::bool
        THEN set_config('synchronous_commit', 'off', true) END AS setting
), extended AS (
    UPDATE opsjobs.loop_runs r
    SET last_at = %(now)s, passes = r.passes + 1, took_seconds = %(took_seconds)s,
        said = %(said)s, error = %(error)s
    FROM hurried
    WHERE r.id = %(id)s AND %(now)s::timestamptz >= r.last_at
        AND %(now)s::timestamptz < r.last_at + 3 * %(every_seconds)s::float8 * interval '1 s'
    RETURNING r.id
), begun AS (
    INSERT INTO opsjobs.loop_runs
        (loop, process, started_at, last_at, every_seconds, took_seconds, said, error)
    SELECT %(loop)s, %(process)s, %(now)s, %(now)s, %(every_seconds)s, %(took_seconds)s, %(said)s,
        %(error)s
    FROM hurried WHERE NOT EXISTS (SELECT FROM extended)
    RETURNING id
)
SELECT id FROM extended UNION ALL SELECT id FROM begun
