-- Marks a deploy. Returns it.
-- Run by `flask opsjobs deployed`, and by the first worker of a new version.
INSERT INTO opsjobs.deploys (version, at, source, actor, note)
VALUES (%(version)s, %(now)s, %(source)s, %(actor)s, %(note)s)
RETURNING id, version, at, source, actor, note
