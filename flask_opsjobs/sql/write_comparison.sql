-- Notes in the books what Redis and the beats lacked or had too much; 0 for every queue that is not named.
-- Run by the keep_books loop. Index: books_pkey.
INSERT INTO opsjobs.books AS b (queue, counted_at, took_seconds, born, pruned, kept, waiting, queued, started,
    compared_at, queued_nowhere, started_unheld, deliveries_without_row)
SELECT names.queue, %(now)s, 0, 0, 0, 0, 0, 0, 0, %(now)s, coalesce(nowhere, 0), coalesce(unheld, 0), coalesce(strays, 0)
FROM (
    SELECT queue FROM opsjobs.books UNION SELECT unnest(%(queues)s::text[])
) AS names LEFT JOIN unnest(%(queues)s::text[], %(nowhere)s::bigint[], %(unheld)s::bigint[], %(strays)s::bigint[])
    AS found (queue, nowhere, unheld, strays) USING (queue)
ORDER BY names.queue
ON CONFLICT (queue) DO UPDATE SET compared_at = excluded.compared_at, queued_nowhere = excluded.queued_nowhere,
    started_unheld = excluded.started_unheld, deliveries_without_row = excluded.deliveries_without_row
