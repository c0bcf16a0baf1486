-- Counts how many due jobs of a lane are dispatched before the one with this priority, due time and id, counted up to
-- %(most)s, and what they weigh together; without those above %(heaviest)s, which can never start. Locks nothing.
-- A walk along the front of the lane that stops. Run by explain/queries.py. Index: jobs_due.
SELECT count(*) AS number, coalesce(sum(weight), 0)::bigint AS weight FROM (
    SELECT weight FROM opsjobs.jobs
    WHERE lane = %(lane)s AND state = 'available'
        AND (priority, due_at, id) < (%(priority)s, %(due_at)s, %(id)s)
        AND (%(heaviest)s::int IS NULL OR weight <= %(heaviest)s)
    ORDER BY priority, due_at, id
    LIMIT %(most)s) AS before
