-- Deletes end events of a run that is gone: nobody could advance it.
-- Run by `advance`, when it finds no run that it can lock. Indexes: workflow_end_events_by_run,
-- workflows_pkey.
DELETE FROM opsjobs.workflow_end_events
WHERE workflow_id = %(id)s AND NOT EXISTS (SELECT FROM opsjobs.workflows WHERE id = %(id)s)
