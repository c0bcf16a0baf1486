-- Gives up plain RQ workers whose key in Redis is gone and was due to be: RQ's own expiry is the only judge.
-- A key that vanished early was flushed, and its worker goes on: it is waited for until the expiry it last had.
-- Returns the names. Run by the observe loop. Index: workers_alive.
UPDATE opsjobs.workers SET state = 'missing', ended_at = %(now)s
WHERE ended_at IS NULL AND kind = 'plain' AND NOT name = ANY (%(seen)s::text[])
    AND heartbeat_at + coalesce((counts ->> 'rq_ttl_seconds')::float8, %(default_ttl_seconds)s)
        * interval '1 s' <= %(now)s
RETURNING name
