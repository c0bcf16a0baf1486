-- Estimates how many jobs the planner believes each state to have: state, estimate (bigint). Big states only: within 5
-- % for those, while a small one may be missing, as is everything before the first ANALYZE.
-- Reads the catalogue, never the jobs. Run by jobs/queries.py where an exact count was broken off.
SELECT common.state, (common.share * class.reltuples)::bigint
FROM pg_catalog.pg_class AS class,
     pg_catalog.pg_stats AS stats,
     LATERAL unnest(stats.most_common_vals::text::text[], stats.most_common_freqs)
         AS common (state, share)
WHERE class.oid = 'opsjobs.jobs'::regclass
  AND class.reltuples > 0
  AND stats.schemaname = 'opsjobs'
  AND stats.tablename = 'jobs'
  AND stats.attname = 'state'
