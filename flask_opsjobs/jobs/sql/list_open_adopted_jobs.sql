-- Lists adopted jobs of one Redis that have not ended: (id, RQ id, queue, task), in id order. Locks nothing.
-- Rows: rq.
-- Run by the adopt loop and by `restore`, in pages. Index: jobs_open_of_rq.
SELECT id, rq_id, queue, task FROM opsjobs.jobs
WHERE origin = 'rq' AND rq_place = %(place)s AND ended_at IS NULL AND id > %(after)s
ORDER BY id LIMIT %(limit)s
