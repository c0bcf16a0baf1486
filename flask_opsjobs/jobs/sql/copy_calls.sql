-- Gathers calls with their keys in hexadecimal, the one in use first.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
COPY {calls} (keys, lane, limiter, partition, weight, args) FROM STDIN
