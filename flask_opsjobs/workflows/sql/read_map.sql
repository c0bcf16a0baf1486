-- Reads what the expansion of a map needs, and whether its job still has the delivery that asks: one that was
-- rescued or given back has not. The row of a job that has been running for less than 50 ms is `queued`. The
-- caller holds the run's lock, and took it in an earlier statement.
-- Rows: opsjobs, by their runs.
-- Run by the job of a map. Indexes: steps_pkey, workflows_pkey, jobs_pkey.
SELECT s.job_id AS id, w.id AS run, w.state, w.steps, s.name, s.settled, s.expanded_at, s.may_fail,
    j.state IN ('queued', 'started') AND j.dispatch_no = %(dispatch_no)s AS is_current,
    clock_timestamp() AS now
FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id JOIN opsjobs.jobs j ON j.id = s.job_id
WHERE s.job_id = %(id)s
