-- Lists those of some tasks that are paused, each with since when, by whom and why. Locks nothing.
-- Run by explain/queries.py. Index: task_pauses_pkey.
SELECT task, paused_at, paused_by, paused_reason FROM opsjobs.task_pauses
WHERE task = ANY (%(tasks)s::text[])
