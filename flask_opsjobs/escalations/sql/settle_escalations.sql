-- Ends escalations as failed whose jobs ended without a call: canceled, discarded, expired or deleted. Their
-- jobs stay as they are. Returns incident, episode and event of each.
-- Rows: opsjobs, by origin.
-- Run by the loop escalate. Indexes: escalations_pending, jobs_pkey.
UPDATE opsjobs.escalations e
SET state = 'failed', ended_at = %(now)s, why = left(coalesce(e.why || '; ', '')
    || CASE WHEN ended.state IS NULL THEN 'its job was deleted'
        WHEN ended.ended_by = 'deadline' THEN 'no process called the policy within a day'
        ELSE 'its job ' || e.job_id || ' is ' || ended.state END, 1000)
FROM (
    SELECT p.id, j.state, j.ended_by FROM opsjobs.escalations p
    LEFT JOIN opsjobs.jobs j ON j.id = p.job_id AND j.origin = 'opsjobs'
    WHERE p.state = 'pending' AND (j.id IS NULL OR j.ended_at IS NOT NULL)
    LIMIT 1000
) AS ended
WHERE e.id = ended.id AND e.state = 'pending'
RETURNING e.incident_id, e.episode, e.event
