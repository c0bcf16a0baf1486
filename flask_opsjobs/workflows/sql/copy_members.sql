-- Writes the steps that a map adds: one per element, which waits for nothing.
-- Run in a transaction of its own, under the run's lock, by the job of a map.
COPY opsjobs.steps (job_id, workflow_id, name, position, kind, map_of, element, pending, released_at,
    may_fail) FROM STDIN
