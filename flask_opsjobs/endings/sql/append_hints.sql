-- Appends an end event of steps whose end could not be passed on as a whole, so that a later `advance` goes
-- on.
-- Run by `advance`.
INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids) VALUES (%(id)s, %(ids)s::bigint[])
