-- Notes who deployed what is marked already, and why; what was noted before stays unless it is given anew.
-- Run by `flask opsjobs deployed`. Index: deploys_pkey.
UPDATE opsjobs.deploys SET source = 'command', actor = %(actor)s, note = coalesce(%(note)s, note)
WHERE id = %(id)s
RETURNING id, version, at, source, actor, note
