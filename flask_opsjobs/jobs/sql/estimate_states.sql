-- Estimates from the planner's statistics how many jobs each state has. Returns state, estimate (bigint).
-- Within 5 % for states with many jobs. A state with few jobs may be missing; before the first ANALYZE all
-- are. Reads the catalogue, never the jobs.
-- Rows: both.
-- Run by jobs/queries.py for counts that stopped at their limit.
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
