-- Finds since when every structure of one Redis was read. Locks nothing.
-- Run by the adopt loop. Index: rq_places_pkey.
SELECT looked_at FROM opsjobs.rq_places WHERE name = %(place)s
