-- Removes the table of gathered calls before the host's transaction ends.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
DROP TABLE {calls}
