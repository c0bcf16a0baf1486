-- Counts the due jobs of a lane that are dispatched before the job with this priority, due time and id, and
-- adds up their weights. Stops counting at %(most)s. Leaves out jobs heavier than %(heaviest)s, which can
-- never start. Reads only the front of the lane. Locks nothing. Run by explain/queries.py. Index: jobs_due.
-- Rows: opsjobs, since no other is available.
SELECT count(*) AS number, coalesce(sum(weight), 0)::bigint AS weight FROM (
    SELECT weight FROM opsjobs.jobs
    WHERE lane = %(lane)s AND state = 'available'
        AND (priority, due_at, id) < (%(priority)s, %(due_at)s, %(id)s)
        AND (%(heaviest)s::int IS NULL OR weight <= %(heaviest)s)
    ORDER BY priority, due_at, id
    LIMIT %(most)s) AS before
