-- Lists the workers that run or have reserved members of canceled batches, each once, with a queue whose
-- Redis they listen on.
-- Rows: opsjobs, by their batches.
-- Run after an action, outside of its transaction. Indexes: jobs_by_state, workers_pkey.
SELECT DISTINCT ON (w.name) j.queue, w.name
FROM opsjobs.jobs j
JOIN opsjobs.workers w ON w.id = coalesce(j.reserved_by, j.worker_id) AND w.kind <> 'plain'
WHERE j.batch_id = ANY (%(ids)s::bigint[]) AND j.state IN ('queued', 'started')
    AND j.cancel_requested_at IS NOT NULL
ORDER BY w.name, j.queue
