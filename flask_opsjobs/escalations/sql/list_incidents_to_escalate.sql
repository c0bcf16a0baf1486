-- Lists the incidents about which something may have to be told: active ones of these severities of whose
-- episode nothing was told yet, or an hour ago and no reminder since, and those that ended within a day, of
-- which the telling call was invoked and the end was not told. `told` holds the events of the episode with
-- their states, `episodes` counts the episodes that began within the hour, `flapped_at` is when an episode
-- was told as flapping last. The decision is made of these rows, in Python. Locks nothing: two passes that
-- decide alike are kept apart by the unique constraint.
-- Run by the loop escalate. Indexes: incidents_active, incidents_to_retain, escalations_event_key,
-- evidence_of_incident.
WITH candidates AS MATERIALIZED (
    (SELECT i.id, NULL::timestamptz AS told_at FROM opsjobs.incidents i
     WHERE i.state = 'open' AND i.state <> 'resolved' AND i.severity = ANY (%(severities)s::text[])
       AND i.class <> 'escalation_failed'
       AND NOT EXISTS (SELECT FROM opsjobs.escalations e
            WHERE e.incident_id = i.id AND e.episode = i.episode AND e.event IN ('opened', 'flapping'))
     ORDER BY i.because_of IS NOT NULL, i.opened_at LIMIT %(limit)s)
    UNION ALL
    (SELECT i.id, e.decided_at FROM opsjobs.incidents i
     JOIN opsjobs.escalations e ON e.incident_id = i.id AND e.episode = i.episode
        AND e.event IN ('opened', 'flapping')
        AND e.decided_at <= %(now)s::timestamptz - %(remind_after)s * interval '1 s'
     WHERE i.state = 'open' AND i.state <> 'resolved' AND i.severity = ANY (%(severities)s::text[])
       AND i.class <> 'escalation_failed'
       AND NOT EXISTS (SELECT FROM opsjobs.escalations r
            WHERE r.incident_id = i.id AND r.episode = i.episode AND r.event = 'reminded')
     ORDER BY e.decided_at LIMIT %(limit)s)
    UNION ALL
    (SELECT i.id, e.decided_at FROM opsjobs.incidents i
     JOIN opsjobs.escalations e ON e.incident_id = i.id AND e.episode = i.episode
        AND e.event IN ('opened', 'flapping') AND e.state = 'invoked'
     WHERE i.resolved_at > %(now)s::timestamptz - interval '1 day'
       AND NOT EXISTS (SELECT FROM opsjobs.escalations r
            WHERE r.incident_id = i.id AND r.episode = i.episode AND r.event IN ('resolved', 'repaired'))
     ORDER BY i.resolved_at LIMIT %(limit)s)
)
SELECT i.id, i.class, i.subject, i.severity, i.state, i.episode, i.opened_at, i.resolved_at, i.facts,
    EXISTS (SELECT FROM opsjobs.incidents c WHERE c.id = i.because_of AND c.state <> 'resolved') AS has_cause,
    (SELECT coalesce(jsonb_object_agg(e.event, e.state), '{}') FROM opsjobs.escalations e
     WHERE e.incident_id = i.id AND e.episode = i.episode) AS told,
    k.told_at,
    (SELECT max(e.decided_at) FROM opsjobs.escalations e
     WHERE e.incident_id = i.id AND e.event = 'flapping') AS flapped_at,
    (SELECT count(DISTINCT v.episode) FROM opsjobs.evidence v
     WHERE v.incident_id = i.id AND v.episode > i.episode - 3 AND v.kind IN ('opened', 'reopened')
       AND v.first_at > %(now)s::timestamptz - %(flap_within)s * interval '1 s') AS episodes
FROM candidates k JOIN opsjobs.incidents i ON i.id = k.id
ORDER BY i.opened_at, i.id
