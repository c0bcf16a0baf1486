-- Locks an operation that runs or is paused, for one turn of it. SKIP LOCKED: another process makes a turn of
-- it, or an operator decides about it; then returns no row.
-- Run by the loop operate, in the transaction of the turn. Index: operations_pkey,
-- or operations_open, which has few rows.
SELECT id, state, action, actor, via, is_trusted, rate, reason, targets, stage, begun_after, is_proof_waived,
    done, skipped, asked, proven, failed_same_error, failed_other_error, unproven, drifted,
    started_at, handled_at, paced_at, code, says
FROM opsjobs.operations WHERE id = %(id)s AND state IN ('running', 'paused')
FOR UPDATE SKIP LOCKED
