-- Begins an operation without rows: as a draft, or one that undoes another as running. Returns its id.
-- No lock. Run by operations, in the transaction that freezes its rows.
INSERT INTO opsjobs.operations (state, action, actor, via, is_trusted, query, undo_of, rate, reason, targets,
    created_at, expires_at, started_at)
VALUES (%(state)s, %(action)s, %(actor)s, %(via)s, %(is_trusted)s, %(query)s, %(undo_of)s, %(rate)s,
    %(reason)s, 0, %(now)s, %(expires_at)s, CASE WHEN %(state)s = 'running' THEN %(now)s::timestamptz END)
RETURNING id
