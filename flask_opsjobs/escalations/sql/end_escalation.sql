-- Writes what came of an escalation, in the transaction that ends the attempt of its job. An escalation that
-- was invoked stays so: it is invoked once. Returns its incident, episode and event; no row when nothing was
-- written.
-- Run by the loop escalate. Index: escalations_pkey.
UPDATE opsjobs.escalations
SET state = %(state)s, reference = %(reference)s, why = %(why)s,
    ended_at = CASE WHEN %(state)s = 'pending' THEN NULL ELSE %(now)s::timestamptz END
WHERE id = %(id)s AND state <> 'invoked' AND (state = 'pending' OR %(state)s <> 'pending')
RETURNING incident_id, episode, event
