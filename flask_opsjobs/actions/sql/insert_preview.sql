-- Stores a plan that is shown to an actor. Returns its id.
-- No lock. Run by an action, in a transaction of its own.
INSERT INTO opsjobs.previews (actor, via, action, targets, params, plan, fingerprint, created_at, expires_at)
VALUES (%(actor)s, %(via)s, %(action)s, %(targets)s, %(params)s,
    %(plan)s, %(fingerprint)s, %(created_at)s, %(expires_at)s)
RETURNING id
