-- Lists the newest batches that are not large, at most 300. To count the members of a large one takes too
-- long for the doctor.
-- Run by the doctor, read-only. Index: batches_pkey.
SELECT id FROM (SELECT id, enqueued FROM opsjobs.batches ORDER BY id DESC LIMIT 300) AS newest
WHERE enqueued <= 5000
