-- Counts the jobs that one `enqueue_many` copied.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
INSERT INTO opsjobs.birth_slips (at, queue, born) VALUES (%(created_at)s::timestamptz, %(queue)s, %(born)s)
