-- Tells whether a wait for a signal ended in the last %(since)s, and no wait is left that could take it.
-- Part of the statements that store signals and look at them again. Indexes: steps_waits, steps_waits_left.
SELECT NOT EXISTS (
    SELECT FROM opsjobs.steps s
    WHERE s.is_wait_left AND s.key = %(key)s AND %(name)s = ANY (s.signals)
      AND (%(run)s::bigint IS NULL OR s.workflow_id = %(run)s::bigint)
) AND EXISTS (
    SELECT FROM opsjobs.steps s
    WHERE s.kind = 'wait' AND s.settled_at > clock_timestamp() - %(since)s::interval
      AND s.key = %(key)s AND %(name)s = ANY (s.signals)
      AND (%(run)s::bigint IS NULL OR s.workflow_id = %(run)s::bigint)
)
