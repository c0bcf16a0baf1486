-- Lists the jobs that an incident names, as its last episode found them: at most 100. Locks nothing.
-- Run by the search for jobs. Index: incidents_pkey.
SELECT named.id::bigint FROM opsjobs.incidents i
CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(i.facts -> 'jobs', '[]')) AS named (id)
WHERE i.id = %(incident)s
