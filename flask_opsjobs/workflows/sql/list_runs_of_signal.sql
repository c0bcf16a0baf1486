-- Lists the runs with an open wait for a signal. Locks nothing.
-- Run after the commit of the signal. Index: steps_waits_left.
SELECT DISTINCT workflow_id FROM opsjobs.steps
WHERE is_wait_left AND opened_at IS NOT NULL
  AND key = %(key)s AND %(name)s = ANY (signals)
  AND (%(run)s::bigint IS NULL OR workflow_id = %(run)s::bigint)
LIMIT %(limit)s
