-- Writes the steps of a run.
-- Run in the host's transaction, in a savepoint, by `start`.
COPY opsjobs.steps (job_id, workflow_id, name, position, kind, pending, released_at, may_fail, takes,
    deadline_seconds, delay_seconds, signals, key, timeout_seconds) FROM STDIN
