-- Lists of the newest 300 batches those that have 20,000 members together, without those of more than 5,000.
-- To count the members of more takes too long for the doctor.
-- Run by the doctor, read-only. Index: batches_pkey.
SELECT id FROM (
    SELECT id, sum(enqueued) OVER (ORDER BY id DESC) AS so_far
    FROM (SELECT id, enqueued FROM opsjobs.batches ORDER BY id DESC LIMIT 300) AS newest
    WHERE enqueued <= 5000
) AS newest WHERE so_far <= 20000
