-- Lets operations go on. After a stop the stages begin anew behind what was handled. One that was paused
-- since its stage is not proven does not wait for that proof any more. The caller has locked the rows.
-- Run by actions and by the loop operate. Index: operations_pkey.
UPDATE opsjobs.operations
SET state = 'running', paused_at = NULL, ended_at = NULL, code = NULL, says = NULL,
    is_proof_waived = (state = 'paused' AND (is_proof_waived OR code = 'unproven')),
    stage = CASE WHEN state = 'stopped' THEN 1 ELSE stage END,
    drifted = CASE WHEN state = 'stopped' THEN 0 ELSE drifted END,
    begun_after = CASE WHEN state = 'stopped'
        THEN done + skipped + asked + proven + failed_same_error + failed_other_error + unproven
        ELSE begun_after END
WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('paused', 'stopped')
