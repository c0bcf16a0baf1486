-- Removes deploys before %(before)s, at most %(limit)s. Keeps the newest, and those that a failure names.
-- Run by the retain loop and by `flask opsjobs retain`. The table gets a few rows a day, and is read whole.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.deploys d
    WHERE at < %(before)s AND id < (SELECT max(id) FROM opsjobs.deploys) AND NOT EXISTS (
        SELECT FROM opsjobs.failures f
        WHERE d.id IN (f.first_deploy, f.last_deploy, f.resolved_in, f.resolved_after, f.regressed_in))
    ORDER BY id LIMIT %(limit)s
)
DELETE FROM opsjobs.deploys d USING old WHERE d.id = old.id
