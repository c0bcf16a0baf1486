-- When the books were last counted, and how long that took; NULL before the first count.
-- Run by the keep_books loop. A row for each queue.
SELECT max(counted_at), max(took_seconds) FROM opsjobs.books
