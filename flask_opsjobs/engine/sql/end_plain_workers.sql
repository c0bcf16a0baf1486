-- Marks plain RQ workers as missing when their key in Redis is gone and had reached its expiry. Returns their
-- names. Only RQ's own expiry decides. A key that vanished before its expiry was flushed and its worker still
-- runs, so the worker is kept until the expiry that the key last had.
-- Run by the observe loop. Index: workers_alive.
UPDATE opsjobs.workers SET state = 'missing', ended_at = %(now)s
WHERE ended_at IS NULL AND kind = 'plain' AND NOT name = ANY (%(seen)s::text[])
    AND heartbeat_at + coalesce((counts ->> 'rq_ttl_seconds')::float8, %(default_ttl_seconds)s)
        * interval '1 s' <= %(now)s
RETURNING name
