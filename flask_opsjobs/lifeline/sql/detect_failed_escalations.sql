-- Finds incidents of which an escalation failed within a day and was not invoked since: one row for each, of
-- its last failure.
-- Run by the loop detect. Index: escalations_ended.
SELECT incident_id, count(*) AS number, min(ended_at) AS since,
    (array_agg(event ORDER BY ended_at DESC))[1] AS event,
    (array_agg(why ORDER BY ended_at DESC))[1] AS why,
    array_agg(job_id ORDER BY job_id) AS jobs
FROM (
    SELECT incident_id, event, why, job_id, ended_at FROM opsjobs.escalations
    WHERE state = 'failed' AND ended_at > %(now)s::timestamptz - interval '1 day'
    ORDER BY ended_at DESC LIMIT 2000
) AS failed
GROUP BY incident_id ORDER BY incident_id LIMIT %(limit)s
