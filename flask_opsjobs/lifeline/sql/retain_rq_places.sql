-- Removes what is kept of each Redis that nobody has asked since %(before)s, at most %(limit)s. Adopted jobs
-- have no foreign key to it. Locks the removed rows.
-- Run by the retain loop and by `flask opsjobs retain`. The table has one row for each Redis.
DELETE FROM opsjobs.rq_places WHERE name IN (
    SELECT name FROM opsjobs.rq_places WHERE greatest(looked_at, seen_at) < %(before)s LIMIT %(limit)s)
