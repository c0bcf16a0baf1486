-- Resumes tasks. The caller has taken the lock of pauses.
-- Run by actions. Index: task_pauses_pkey.
DELETE FROM opsjobs.task_pauses WHERE task = ANY (%(tasks)s::text[])
