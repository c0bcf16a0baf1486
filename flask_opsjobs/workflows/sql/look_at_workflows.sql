-- Reads runs for the decision about an operator's action, each with the other open run of the same name and
-- unique key. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: workflows_pkey,
-- workflows_open_key.
SELECT w.id, w.name, w.state, w.end_no, w.cancel_requested_at, w.failed + w.canceled AS unfinished,
    w.unique_key, o.id AS open_rival
FROM opsjobs.workflows w LEFT JOIN opsjobs.workflows o
    ON o.name = w.name AND o.unique_key = w.unique_key AND o.ended_at IS NULL AND o.id <> w.id
WHERE w.id = ANY (%(ids)s::bigint[]) ORDER BY w.id
