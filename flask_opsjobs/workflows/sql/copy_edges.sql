-- Writes which step of a run waits for which.
-- Run in the host's transaction, in a savepoint, by `start`.
COPY opsjobs.edges (from_id, to_id, on_failure) FROM STDIN
