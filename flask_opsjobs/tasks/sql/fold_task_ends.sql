-- Removes %(limit)s appended rows about ends of tasks, and returns what they say, to be added up: per task,
-- minute and state how many jobs ended, how many rows said so, and the most memory in kB; and per task and
-- minute how many of them waited and ran so long, as buckets of histograms with %(bounds)s in seconds, with
-- the sums and the longest of these durations in seconds.
-- A row that is not committed yet is invisible here, and a later pass folds it, however late its commit is.
-- Run by the roll_up loop. It walks the table, which this keeps small.
WITH oldest AS MATERIALIZED (
    SELECT ctid FROM opsjobs.task_end_deltas LIMIT %(limit)s FOR UPDATE
), gone AS MATERIALIZED (
    DELETE FROM opsjobs.task_end_deltas d USING oldest WHERE d.ctid = oldest.ctid
    RETURNING d.task, d.minute, d.state, d.number, d.waits, d.runs, d.peak_kb
), had_run AS (
    SELECT task, minute, greatest(wait::float8, 0) AS wait, greatest(run::float8, 0) AS run
    FROM gone, unnest(waits, runs) AS timed(wait, run)
)
SELECT task, minute, state, sum(number)::bigint, count(*), max(peak_kb), NULL::int, NULL::int, 0::float8,
    0::float8, NULL::float8, NULL::float8
FROM gone GROUP BY task, minute, state
UNION ALL
SELECT task, minute, NULL, count(*), 0, NULL, width_bucket(wait, %(bounds)s::float8[]),
    width_bucket(run, %(bounds)s::float8[]), sum(wait), sum(run), max(wait), max(run)
FROM had_run GROUP BY task, minute, width_bucket(wait, %(bounds)s::float8[]),
    width_bucket(run, %(bounds)s::float8[])
