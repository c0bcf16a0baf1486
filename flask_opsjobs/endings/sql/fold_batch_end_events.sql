-- Folds appended rows of a batch: deletes them and adds them to its counts. Returns how many there were, and
-- whether a member failed. A row that takes ends back is folded only with the last of the others, so that no
-- count falls below 0 in between: what it takes back was counted by a row that was committed before it.
-- The caller holds the batch's lock, and took it in an earlier statement.
-- Run by `fold`. Indexes: batch_end_events_by_batch, batch_ends_pkey, batches_pkey.
WITH added AS MATERIALIZED (
    DELETE FROM opsjobs.batch_end_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM opsjobs.batch_end_events
        WHERE batch_id = %(id)s AND number >= 0 LIMIT %(limit)s))
    RETURNING kind, ended_by, number
), taken_back AS MATERIALIZED (
    DELETE FROM opsjobs.batch_end_events
    WHERE batch_id = %(id)s AND number < 0 AND (SELECT count(*) FROM added) < %(limit)s
    RETURNING kind, ended_by, number
), events AS MATERIALIZED (
    SELECT * FROM added UNION ALL SELECT * FROM taken_back
), totals AS MATERIALIZED (
    SELECT count(*) AS events, coalesce(sum(number) FILTER (WHERE kind = 'enqueued'), 0) AS enqueued,
        coalesce(bool_or(kind = 'failed' AND number > 0), false) AS has_failed
    FROM events
), ends AS (
    INSERT INTO opsjobs.batch_ends (batch_id, state, ended_by, number)
    SELECT %(id)s, n.kind, n.ended_by, coalesce(o.number, 0) + n.number
    FROM (
        SELECT kind, ended_by, sum(number)::bigint AS number FROM events WHERE kind <> 'enqueued'
        GROUP BY kind, ended_by) AS n
    LEFT JOIN opsjobs.batch_ends o ON o.batch_id = %(id)s AND o.state = n.kind AND o.ended_by = n.ended_by
    ON CONFLICT (batch_id, state, ended_by) DO UPDATE SET number = excluded.number
), folded AS (
    UPDATE opsjobs.batches b SET enqueued = b.enqueued + t.enqueued,
        first_failed_at = coalesce(b.first_failed_at, CASE WHEN t.has_failed THEN %(now)s::timestamptz END)
    FROM totals t WHERE b.id = %(id)s AND t.events > 0
)
SELECT events, has_failed FROM totals
