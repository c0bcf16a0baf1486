-- Appends the next row to the audit's chain, and makes it the head. The caller has locked the head.
-- Run by audit.append. Index: audit_head_pkey.
WITH event AS (
    INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, targets,
        permission, reason, outcome,
        code, request_id, preview_id, previewed_at, before, after,
        canonical, key_id, previous_hash, hash)
    VALUES (%(sequence)s, %(at)s, %(actor)s, %(via)s, %(action)s, %(subject)s, %(targets)s,
        %(permission)s, %(reason)s,
        %(outcome)s, %(code)s, %(request_id)s, %(preview_id)s, %(previewed_at)s,
        %(before)s::jsonb, %(after)s::jsonb, %(canonical)s, %(key_id)s, %(previous_hash)s, %(hash)s)
    RETURNING sequence, hash, at
)
UPDATE opsjobs.audit_head h SET sequence = event.sequence, hash = event.hash, at = event.at
FROM event WHERE h.id = 1
