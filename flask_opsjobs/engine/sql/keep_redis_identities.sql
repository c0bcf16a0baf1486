-- Keeps what each Redis is now. Locks their rows, in the order of their names. Of two copies of the loop the
-- one that writes last counts: who has seen the Redis of before finds its end once more in the next pass.
-- Run by the observe loop, once in each pass. Index: rq_places_pkey.
INSERT INTO opsjobs.rq_places AS p (name, seen_at, identity)
SELECT name, %(now)s, identity FROM unnest(%(places)s::text[], %(identities)s::jsonb[]) AS n(name, identity)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, identity = excluded.identity
