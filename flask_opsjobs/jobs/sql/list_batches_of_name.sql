-- Lists the newest %(most)s batches of a name. A range of one name instead of an equality, so that the
-- planner walks the index of names. Locks nothing.
-- Run by the search for jobs. Index: batches_by_name.
SELECT id FROM opsjobs.batches
WHERE (name, id) >= (%(name)s::text, 0) AND (name, id) <= (%(name)s::text, 9223372036854775807)
ORDER BY name DESC, id DESC LIMIT %(most)s
