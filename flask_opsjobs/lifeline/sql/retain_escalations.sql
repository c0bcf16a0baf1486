-- Removes escalations that ended before %(before)s, at most %(limit)s. What was told of the present episode
-- of an incident is kept while the incident is active, else it would be told again.
-- Run by the retain loop and by `flask opsjobs retain`. Index: escalations_ended.
WITH old AS MATERIALIZED (
    SELECT e.id FROM opsjobs.escalations e
    WHERE e.ended_at < %(before)s AND NOT EXISTS (
        SELECT FROM opsjobs.incidents i
        WHERE i.id = e.incident_id AND i.episode = e.episode AND i.state <> 'resolved')
    ORDER BY e.ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.escalations e USING old WHERE e.id = old.id
