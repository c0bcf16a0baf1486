-- Locks the rows of plain RQ jobs that a worker of ours ran, in id order, before their runs are written.
-- Skips locked ones, whose runs are written later. Returns the others as they are in %(rows)s.
-- Rows: rq.
-- Run by the recorder of a worker, before `record_runs_of_plain_jobs`. Index: jobs_of_rq.
SELECT r.rq_id, r.created_at FROM opsjobs.jobs j
JOIN json_to_recordset(%(rows)s) AS r (rq_id text, created_at text)
    ON j.rq_id = r.rq_id AND j.rq_created_at = r.created_at::timestamptz
WHERE j.origin = 'rq' AND j.rq_place = %(place)s
ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
