-- Counts the jobs in each of %(states)s and stops at %(most)s. Returns state, number and, where it stopped,
-- how many there are by the planner's statistics (bigint): within 5 % for states with many jobs; NULL for
-- one with few, and before the first ANALYZE. Locks nothing.
-- Rows: both.
-- Run by jobs/queries.py for the tabs above a list. Index: jobs_by_state, at most %(most)s entries a state.
SELECT states.state, counted.number, estimated.number
FROM unnest(%(states)s::text[]) AS states (state),
     LATERAL (
         SELECT count(*) AS number
         FROM (SELECT FROM opsjobs.jobs AS job WHERE job.state = states.state LIMIT %(most)s) AS sampled
     ) AS counted
     LEFT JOIN LATERAL (
         SELECT (common.share * class.reltuples)::bigint AS number
         FROM pg_catalog.pg_class AS class,
              pg_catalog.pg_stats AS stats,
              LATERAL unnest(stats.most_common_vals::text::text[], stats.most_common_freqs)
                  AS common (state, share)
         WHERE counted.number = %(most)s
           AND class.oid = 'opsjobs.jobs'::regclass
           AND class.reltuples > 0
           AND stats.schemaname = 'opsjobs'
           AND stats.tablename = 'jobs'
           AND stats.attname = 'state'
           AND common.state = states.state
     ) AS estimated ON true
