-- Computes for each of these names how long its runs usually take: the median of those that finished among
-- its newest %(examined)s runs, in seconds from start to end. A range of one name instead of an equality, so
-- that the planner walks the index of names. Locks nothing.
-- Run by the pages of workflows. Index: workflows_by_name.
SELECT wanted.name, percentile_cont(0.5) WITHIN GROUP (ORDER BY newest.seconds) AS seconds
FROM unnest(%(names)s::text[]) AS wanted (name) CROSS JOIN LATERAL (
    SELECT state, extract(epoch FROM ended_at - created_at) AS seconds FROM opsjobs.workflows w
    WHERE (w.name, w.id) >= (wanted.name, 0) AND (w.name, w.id) <= (wanted.name, 9223372036854775807)
    ORDER BY w.name DESC, w.id DESC LIMIT %(examined)s
) AS newest
WHERE newest.state = 'finished'
GROUP BY wanted.name HAVING count(*) >= %(fewest)s
