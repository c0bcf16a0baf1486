-- Keeps the first %(first)s and the newest %(newest)s rows of each of these episodes. The rows between become
-- one row `folded`, which says how many rows they were, and when the first and the last of them was seen.
-- The caller has locked the incidents. Run by a detecting pass that added rows. Index: evidence_of_incident.
WITH ranked AS MATERIALIZED (
    SELECT e.id, e.incident_id, e.episode, e.first_at, e.last_at, e.count,
        row_number() OVER (PARTITION BY e.incident_id, e.episode ORDER BY e.id) AS from_first,
        row_number() OVER (PARTITION BY e.incident_id, e.episode ORDER BY e.id DESC) AS from_newest
    FROM unnest(%(incidents)s::bigint[], %(episodes)s::int[]) AS g(incident_id, episode)
    JOIN opsjobs.evidence e ON e.incident_id = g.incident_id AND e.episode = g.episode
    WHERE e.kind <> 'folded'
), old AS MATERIALIZED (
    SELECT * FROM ranked WHERE from_first > %(first)s AND from_newest > %(newest)s
), deleted AS (
    DELETE FROM opsjobs.evidence e USING old WHERE e.id = old.id
), folded AS MATERIALIZED (
    SELECT incident_id, episode, min(first_at) AS first_at, max(last_at) AS last_at, count(*) AS rows,
        sum(count)::bigint AS count
    FROM old GROUP BY incident_id, episode
), added AS (
    UPDATE opsjobs.evidence e
    SET count = e.count + f.count, first_at = least(e.first_at, f.first_at),
        last_at = greatest(e.last_at, f.last_at),
        facts = jsonb_build_object('rows', (e.facts ->> 'rows')::bigint + f.rows)
    FROM folded f WHERE e.incident_id = f.incident_id AND e.episode = f.episode AND e.kind = 'folded'
    RETURNING e.incident_id, e.episode
)
INSERT INTO opsjobs.evidence (incident_id, episode, kind, first_at, last_at, count, source, facts)
SELECT f.incident_id, f.episode, 'folded', f.first_at, f.last_at, f.count, 'detect',
    jsonb_build_object('rows', f.rows)
FROM folded f
WHERE NOT EXISTS (
    SELECT FROM added a WHERE a.incident_id = f.incident_id AND a.episode = f.episode)
