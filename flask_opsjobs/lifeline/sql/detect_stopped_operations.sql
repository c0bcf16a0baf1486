-- Finds operations that stopped by themselves within a day and were not resumed.
-- Run by the loop detect. Index: operations_ended.
SELECT id, action, actor, code, says, ended_at,
    targets - done - skipped - asked - proven - failed_same_error - failed_other_error - unproven AS left_over
FROM opsjobs.operations
WHERE state = 'stopped' AND ended_at IS NOT NULL AND ended_at > %(now)s::timestamptz - interval '1 day'
ORDER BY ended_at DESC LIMIT %(limit)s
