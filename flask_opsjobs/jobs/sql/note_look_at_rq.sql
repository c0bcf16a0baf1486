-- Notes a whole look at one Redis, and the end of a walk through its keys. Of two copies of the loop the
-- later look counts.
-- Run by the adopt loop, once in each pass. Index: rq_places_pkey.
INSERT INTO opsjobs.rq_places AS p (name, looked_at, walked_at)
VALUES (%(place)s, %(looked_at)s, %(walked_at)s)
ON CONFLICT (name) DO UPDATE SET looked_at = greatest(p.looked_at, excluded.looked_at),
    walked_at = coalesce(excluded.walked_at, p.walked_at)
