-- Gives waiting jobs another queue, priority or arguments, with the lane, limit, tags and unique key that
-- follow from them. %(rows)s is a JSON list; `args` has only the arguments that change. A queued job is
-- available again: a worker that takes its delivery refuses it. A reserved job is left to its worker. The
-- integrity check counts by queue, so a job that moves counts as deleted from its old queue and as enqueued
-- in the new one; it names no task, since the numbers of the task stay. The caller has locked the rows.
-- Rows: opsjobs, by origin.
-- Run by actions. Index: jobs_pkey.
WITH edited AS MATERIALIZED (
    SELECT n.*, j.queue AS old_queue
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS n(id bigint, queue text, priority smallint, lane text,
        limiter text, partition text, weight int, args jsonb, tags jsonb, unique_key text)
    JOIN opsjobs.jobs j USING (id)
    WHERE j.state = ANY (%(sources)s::text[]) AND j.reserved_by IS NULL AND j.origin = 'opsjobs'
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, deleted)
    SELECT %(now)s, side.queue, sum(side.enqueued), sum(side.deleted)
    FROM edited e
    CROSS JOIN LATERAL (VALUES (e.old_queue, 0, 1), (e.queue, 1, 0)) AS side(queue, enqueued, deleted)
    WHERE e.queue <> e.old_queue
    GROUP BY side.queue
)
UPDATE opsjobs.jobs j
SET queue = e.queue, priority = e.priority, lane = e.lane,
    limiter = e.limiter, partition = e.partition, weight = e.weight, args = j.args || e.args,
    tags = ARRAY(SELECT jsonb_array_elements_text(e.tags)), unique_key = decode(e.unique_key, 'hex'),
    state = CASE j.state WHEN 'queued' THEN 'available' ELSE j.state END,
    dispatched_at = CASE WHEN j.state <> 'queued' THEN j.dispatched_at END
FROM edited e WHERE j.id = e.id
