-- Reads an escalation with its incident as it is now.
-- Run by the loop escalate before it calls the policy. Indexes: escalations_pkey, incidents_pkey.
SELECT e.id, e.event, e.episode, e.state AS escalation_state, e.decided_at, e.repair,
    i.id AS incident, i.class, i.severity, i.subject, i.state, i.episode AS current_episode, i.opened_at,
    i.resolved_at, i.resolved_by, i.affected, i.facts
FROM opsjobs.escalations e JOIN opsjobs.incidents i ON i.id = e.incident_id
WHERE e.id = %(id)s
