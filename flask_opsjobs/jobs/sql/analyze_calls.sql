-- Tells the planner how many calls were gathered: autovacuum does not analyze temporary tables.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
ANALYZE {calls}
