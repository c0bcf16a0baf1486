-- Tells the planner how many calls have gathered: nobody else counts a temporary table.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
ANALYZE {calls}
