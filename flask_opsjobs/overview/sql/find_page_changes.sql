-- Tells whether anything that a page shows may have changed, in one row: the time; `changed_rows`, how many
-- rows were ever inserted, deleted or updated in the tables %(tables)s, by Postgres' own counters, which only
-- grow; and `state`, a hash of what changes without these. Updates of %(refreshed)s do not count: workers
-- and loops make them although nothing happens. In their place `state` has who is alive, each worker that has
-- not ended without its columns %(beats)s, which loops run and fail, and the first 1,000 active incidents
-- without %(seen)s. Costs the same for any number of jobs. Locks nothing.
-- Rows: both.
-- Run by overview/changes.py. Indexes: workers_alive, loop_runs_latest, incidents_active.
SELECT %(now)s::timestamptz AS now,
    coalesce((
        SELECT sum(pg_stat_get_tuples_inserted(id) + pg_stat_get_tuples_deleted(id)
            + CASE WHEN name = ANY (%(refreshed)s::text[]) THEN 0 ELSE pg_stat_get_tuples_updated(id) END)
        FROM (SELECT name, to_regclass(name)::oid AS id FROM unnest(%(tables)s::text[]) AS name) AS counted
    ), 0)::bigint AS changed_rows,
    md5(concat_ws(' | ',
        coalesce((SELECT string_agg(id::text, ',' ORDER BY id) FROM {alive_workers.sql} AS alive), ''),
        coalesce((
            SELECT string_agg((to_jsonb(w) - %(beats)s::text[])::text, ',' ORDER BY id)
            FROM opsjobs.workers w WHERE ended_at IS NULL
        ), ''),
        coalesce((
            SELECT string_agg(concat_ws(' ', loop, process, started_at, is_running, error), ',' ORDER BY loop)
            FROM {list_latest_loop_runs.sql} AS latest
        ), ''),
        coalesce((
            SELECT string_agg((to_jsonb(i) - %(seen)s::text[])::text, ',' ORDER BY id)
            FROM (
                SELECT * FROM opsjobs.incidents WHERE state <> 'resolved'
                ORDER BY class, fingerprint LIMIT 1000
            ) AS i
        ), '')
    )) AS state
