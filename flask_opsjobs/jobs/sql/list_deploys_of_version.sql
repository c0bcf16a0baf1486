-- Lists the newest %(most)s deploys of a version. Locks nothing.
-- Run by the search for jobs. Index: deploys_by_version.
SELECT id FROM opsjobs.deploys
WHERE (version, id) >= (%(version)s::text, 0) AND (version, id) <= (%(version)s::text, 9223372036854775807)
ORDER BY version DESC, id DESC LIMIT %(most)s
