-- Finds when the first stored job ended; NULL when no stored job has ended. One probe for each state. Locks
-- nothing.
-- Rows: both.
-- Run by the roll_up loop in its first pass. Index: jobs_to_retain.
SELECT min(first.ended_at) FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT ended_at FROM opsjobs.jobs WHERE jobs.state = states.state AND ended_at IS NOT NULL
    ORDER BY ended_at LIMIT 1
) AS first
