-- Lists the names of plain RQ workers that have not ended, and of those that went missing within a day. After
-- a flush of Redis such a worker may come back although no list in Redis names it.
-- Run by the observe loop. The table is small: workers that ended are removed after a week.
SELECT name FROM opsjobs.workers
WHERE kind = 'plain'
    AND (ended_at IS NULL
        OR (state = 'missing' AND ended_at > %(now)s::timestamptz - interval '1 day'))
