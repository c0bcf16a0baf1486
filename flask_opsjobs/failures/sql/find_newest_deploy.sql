-- Finds the newest deploy; with %(version)s the newest one of this version. Locks nothing.
-- Run by `flask opsjobs deployed`, by a worker that starts, and by the page of workers.
-- Indexes: deploys_pkey, deploys_by_version.
SELECT id, version, at, source, actor, note FROM opsjobs.deploys
WHERE %(version)s::text IS NULL OR version = %(version)s
ORDER BY id DESC LIMIT 1
