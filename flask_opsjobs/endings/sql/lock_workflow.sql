-- Locks a run, unless another process has locked it: that one advances it, or changes it and advances it
-- after its commit. Returns what `advance` decides by, and the time; no row when the run is locked or gone.
-- Run by `advance`. Index: workflows_pkey.
SELECT coalesce(%(now)s, clock_timestamp()) AS now, state, steps - settled AS unsettled, trouble,
    cancel_requested_by, cancel_reason, {limit_turn.sql} AS limits
FROM opsjobs.workflows
WHERE id = %(id)s
FOR NO KEY UPDATE SKIP LOCKED
