-- Finds the trace context in which a job was enqueued, and of what the attempt before this one died, if it
-- did. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run for the span of an attempt, after its outcome was sent. Index: jobs_pkey, attempts_pkey.
SELECT j.traceparent, j.tracestate, before.death, before.cause_of_death
FROM opsjobs.jobs j
LEFT JOIN LATERAL (
    SELECT a.death, a.cause_of_death FROM opsjobs.attempts a
    WHERE a.job_id = j.id AND a.dispatch_no < %(dispatch_no)s ORDER BY a.dispatch_no DESC LIMIT 1
) AS before ON true
WHERE j.id = %(id)s AND j.origin = 'opsjobs'
