-- Removes at most %(limit)s minutes of tasks before %(before)s, oldest first. Their hours hold them too.
-- Run by the retain loop and by `flask opsjobs retain`. Index: task_minutes_to_retain.
WITH old AS MATERIALIZED (
    SELECT task, minute FROM opsjobs.task_minutes WHERE minute < %(before)s ORDER BY minute LIMIT %(limit)s
)
DELETE FROM opsjobs.task_minutes t USING old WHERE t.task = old.task AND t.minute = old.minute
