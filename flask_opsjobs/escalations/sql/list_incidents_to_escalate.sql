-- Lists the incidents about which something may have to be told: open ones of these severities of whose
-- episode nothing was told yet, or an hour ago and no reminder since; and of the last thousand that ended
-- within a day, those of which the telling call was invoked and the end was not told. `told` holds the events
-- of the episode with their states, `episodes` counts the episodes that began within the hour, `flapped_at`
-- is when an episode was told as flapping last. The decision is made of these rows, in Python. Locks nothing:
-- two passes that decide alike are kept apart by the unique constraint.
-- Run by the loop escalate. Indexes: incidents_active, incidents_to_retain, escalations_event_key,
-- evidence_of_incident.
WITH seen AS MATERIALIZED (
    (SELECT * FROM opsjobs.incidents
     WHERE state <> 'resolved' AND state = 'open' AND severity = ANY (%(severities)s::text[])
       AND class <> 'escalation_failed')
    UNION ALL
    (SELECT * FROM opsjobs.incidents WHERE resolved_at > %(now)s::timestamptz - interval '1 day'
     ORDER BY resolved_at DESC LIMIT 1000)
), with_told AS MATERIALIZED (
    SELECT i.*, t.*,
        EXISTS (SELECT FROM opsjobs.incidents c WHERE c.id = i.because_of AND c.state <> 'resolved')
            AS has_cause
    FROM seen i CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(e.event, e.state), '{}') AS told,
            min(e.decided_at) FILTER (WHERE e.event IN ('opened', 'flapping')) AS told_at,
            count(*) FILTER (WHERE e.event IN ('opened', 'flapping') AND e.state = 'invoked') AS calls,
            count(*) FILTER (WHERE e.event = 'reminded') AS reminders,
            count(*) FILTER (WHERE e.event IN ('resolved', 'repaired')) AS ends
        FROM opsjobs.escalations e WHERE e.incident_id = i.id AND e.episode = i.episode) AS t
), candidates AS MATERIALIZED (
    SELECT * FROM with_told
    WHERE CASE WHEN state = 'resolved' THEN calls > 0 AND ends = 0
        ELSE told_at IS NULL OR (reminders = 0
            AND told_at <= %(now)s::timestamptz - %(remind_after)s * interval '1 s') END
    ORDER BY has_cause, opened_at, id LIMIT %(limit)s
)
SELECT i.id, i.class, i.subject, i.severity, i.state, i.episode, i.opened_at, i.resolved_at, i.facts,
    i.has_cause, i.told, i.told_at,
    (SELECT max(e.decided_at) FROM opsjobs.escalations e
     WHERE e.incident_id = i.id AND e.event = 'flapping') AS flapped_at,
    (SELECT count(DISTINCT v.episode) FROM opsjobs.evidence v
     WHERE v.incident_id = i.id AND v.episode > i.episode - 3 AND v.kind IN ('opened', 'reopened')
       AND v.first_at > %(now)s::timestamptz - %(flap_within)s * interval '1 s') AS episodes
FROM candidates i
