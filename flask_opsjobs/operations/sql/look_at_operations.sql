-- Reads operations for the decision about an operator's action, each with how many jobs the running and
-- paused operations of %(actor)s have, and with the one of those, of anybody, that undoes it. Locks nothing.
-- Run by actions. Indexes: operations_pkey, operations_open.
SELECT o.id, o.state, o.action, o.actor, o.is_trusted, o.query, o.targets, o.rate, o.expires_at,
    o.code,
    o.done + o.skipped + o.asked + o.proven + o.failed_same_error + o.failed_other_error + o.unproven
        AS handled,
    o.done, (
        SELECT coalesce(sum(p.targets), 0) FROM opsjobs.operations p
        WHERE p.actor = %(actor)s AND p.state IN ('running', 'paused'))::bigint AS open_targets, (
        SELECT min(u.id) FROM opsjobs.operations u
        WHERE u.undo_of = o.id AND u.state IN ('running', 'paused')) AS undone_by
FROM opsjobs.operations o WHERE o.id = ANY (%(ids)s::bigint[]) ORDER BY o.id
