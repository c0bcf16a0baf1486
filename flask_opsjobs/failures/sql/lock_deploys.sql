-- Lets one transaction at a time mark a deploy, so that their ids are in the order of their commits.
-- Run by `flask opsjobs deployed`, and by a worker that starts with a new version.
SELECT pg_advisory_xact_lock(hashtextextended('opsjobs deploys', 0))
