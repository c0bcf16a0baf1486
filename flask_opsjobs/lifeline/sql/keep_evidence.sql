-- Keeps observations of incidents. One that equals the newest row of its kind in its episode is counted
-- there; each other one, and each decision, is a new row. Returns incident and episode of each new row.
-- The caller has locked the incidents. Run by a detecting pass and by actions. Index: evidence_of_incident.
WITH given AS MATERIALIZED (
    SELECT g.*, newest.id AS row_id,
        coalesce(newest.source = g.source AND newest.facts = g.facts AND g.audit_sequence IS NULL, false)
            AS is_equal
    FROM unnest(%(incidents)s::bigint[], %(episodes)s::int[], %(ats)s::timestamptz[], %(kinds)s::text[],
        %(sources)s::text[], %(facts)s::jsonb[], %(audit_sequences)s::bigint[])
        WITH ORDINALITY AS g(incident_id, episode, at, kind, source, facts, audit_sequence, position)
    LEFT JOIN LATERAL (
        SELECT e.id, e.source, e.facts FROM opsjobs.evidence e
        WHERE e.incident_id = g.incident_id AND e.episode = g.episode AND e.kind = g.kind
        ORDER BY e.id DESC LIMIT 1
    ) AS newest ON true
), counted AS (
    UPDATE opsjobs.evidence e SET count = e.count + 1, last_at = greatest(e.last_at, g.at)
    FROM given g WHERE g.is_equal AND e.id = g.row_id
)
INSERT INTO opsjobs.evidence (incident_id, episode, kind, first_at, last_at, source, facts, audit_sequence)
SELECT g.incident_id, g.episode, g.kind, g.at, g.at, g.source, g.facts, g.audit_sequence
FROM given g WHERE NOT g.is_equal
ORDER BY g.position
RETURNING incident_id, episode
