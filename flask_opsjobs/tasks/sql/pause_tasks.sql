-- Pauses tasks. The caller has taken the lock of pauses.
-- Run by actions. Index: task_pauses_pkey.
INSERT INTO opsjobs.task_pauses (task, paused_at, paused_by, paused_reason)
SELECT name, %(now)s, %(actor)s, %(reason)s FROM unnest(%(tasks)s::text[]) AS n(name)
