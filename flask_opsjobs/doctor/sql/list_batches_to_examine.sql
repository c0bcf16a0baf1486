-- Lists of the newest 300 batches those that have 20,000 members together, without those of more than 5,000.
-- To count the members of more takes too long for the doctor. Members that are not folded yet count too.
-- Run by the doctor, read-only. Indexes: batches_pkey, batch_end_events_by_batch.
SELECT id FROM (
    SELECT id, sum(members) OVER (ORDER BY id DESC) AS so_far
    FROM (
        SELECT id, enqueued + coalesce((SELECT sum(number) FROM opsjobs.batch_end_events
            WHERE batch_id = b.id AND kind = 'enqueued'), 0) AS members
        FROM opsjobs.batches b ORDER BY id DESC LIMIT 300) AS newest
    WHERE members <= 5000
) AS newest WHERE so_far <= 20000
