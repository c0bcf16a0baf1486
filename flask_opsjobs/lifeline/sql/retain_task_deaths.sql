-- Removes at most %(limit)s days of deaths before %(before)s, oldest first.
-- Run by the retain loop and by `flask opsjobs retain`. Index: task_deaths_to_retain.
WITH old AS MATERIALIZED (
    SELECT task, day, death FROM opsjobs.task_deaths WHERE day < %(before)s ORDER BY day LIMIT %(limit)s
)
DELETE FROM opsjobs.task_deaths t USING old
WHERE t.task = old.task AND t.day = old.day AND t.death = old.death
