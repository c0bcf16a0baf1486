-- Locks a run, unless another process has locked it: that one advances it, or changes it and advances it
-- after its commit. Returns what `advance` decides by, and the time; no row when the run is locked or gone.
-- From here on no statement of the transaction waits for a lock for longer than %(patience)s; null leaves it
-- to the caller's transaction. Else its commit does not wait for the disk: when Postgres crashes before it is
-- written, the end events are there again, and nobody has dispatched the steps that it released, because a
-- dispatch waits for the disk.
-- Run by `advance`. Index: workflows_pkey.
SELECT coalesce(%(now)s, clock_timestamp()) AS now, state, trouble, cancel_requested_by, cancel_reason,
    set_config('lock_timeout', coalesce(%(patience)s, current_setting('lock_timeout')), true),
    set_config('synchronous_commit', CASE WHEN %(patience)s IS NULL
        THEN current_setting('synchronous_commit') ELSE 'off' END, true)
FROM opsjobs.workflows
WHERE id = %(id)s
FOR NO KEY UPDATE SKIP LOCKED
