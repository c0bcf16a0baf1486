-- Lists what each Redis was when the loop observe last looked. Locks nothing.
-- Run by the observe loop, once in each pass. The table has one row for each Redis.
SELECT name, identity FROM opsjobs.rq_places WHERE identity IS NOT NULL
