-- Records a pass of a loop: extends the stretch in which the loop ran. Begins a new stretch after a gap
-- of three intervals, or when the clock was stepped back. Failed passes in a row are counted across such a
-- gap, since one that waits for Redis may itself take as long. Returns the id of the stretch. `is_idle`
-- makes the commit asynchronous, because nothing depends on a pass that did nothing.
-- Run by each loop after each pass, in the transaction of the pass when it has one. Index: loop_runs_pkey.
WITH hurried AS MATERIALIZED (
    SELECT CASE WHEN %(is_idle)s::bool
        THEN set_config('synchronous_commit', 'off', true) END AS setting
), extended AS (
    UPDATE opsjobs.loop_runs r
    SET last_at = %(now)s, passes = r.passes + 1, took_seconds = %(took_seconds)s,
        report = %(report)s, error = %(error)s,
        failed_in_a_row = CASE WHEN %(error)s::text IS NULL THEN 0 ELSE r.failed_in_a_row + 1 END
    FROM hurried
    WHERE r.id = %(id)s AND %(now)s::timestamptz >= r.last_at
        AND %(now)s::timestamptz < r.last_at + 3 * %(every_seconds)s::float8 * interval '1 s'
    RETURNING r.id
), begun AS (
    INSERT INTO opsjobs.loop_runs
        (loop, process, started_at, last_at, every_seconds, took_seconds, report, error,
            failed_in_a_row)
    SELECT %(loop)s, %(process)s, %(now)s, %(now)s, %(every_seconds)s, %(took_seconds)s, %(report)s,
        %(error)s, CASE WHEN %(error)s::text IS NULL THEN 0
            ELSE 1 + coalesce((SELECT failed_in_a_row FROM opsjobs.loop_runs WHERE id = %(id)s), 0) END
    FROM hurried WHERE NOT EXISTS (SELECT FROM extended)
    RETURNING id
)
SELECT id FROM extended UNION ALL SELECT id FROM begun
