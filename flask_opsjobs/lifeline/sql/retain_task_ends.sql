-- Removes at most %(limit)s quarters of an hour of tasks before %(before)s, oldest first.
-- Run by the retain loop and by `flask opsjobs retain`. Index: task_ends_to_retain.
WITH old AS MATERIALIZED (
    SELECT task, quarter FROM opsjobs.task_ends WHERE quarter < %(before)s ORDER BY quarter LIMIT %(limit)s
)
DELETE FROM opsjobs.task_ends t USING old WHERE t.task = old.task AND t.quarter = old.quarter
