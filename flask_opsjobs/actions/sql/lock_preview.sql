-- Locks a preview before anything else: the second of two executions waits, and then finds it spent.
-- Run by actions, in the transaction of an execution. Index: previews_pkey.
SELECT id, actor, action, targets, params, plan,
    fingerprint, created_at, expires_at, spent_at, reused_at, receipt
FROM opsjobs.previews WHERE id = %(id)s FOR UPDATE
