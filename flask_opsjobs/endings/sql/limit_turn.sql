-- Bounds a turn of `advance` or `fold`: from here on no statement of the transaction waits for a lock for
-- longer than %(patience)s; null leaves it to the caller's transaction. Else its commit does not wait for the
-- disk: when Postgres crashes before it is written, the end events are there again, and nobody has dispatched
-- what it released, because a dispatch waits for the disk.
-- Part of the statements that lock a run or a batch for a turn.
SELECT set_config('lock_timeout', coalesce(%(patience)s, current_setting('lock_timeout')), true)
    || set_config('synchronous_commit', CASE WHEN %(patience)s IS NULL
        THEN current_setting('synchronous_commit') ELSE 'off' END, true)
