-- Opens resolved failures again, because they failed on workers that have the fix.
-- Run by the roll_up loop, which has locked them. Index: failures_pkey.
UPDATE opsjobs.failures f SET state = 'open', decided_at = NULL, decided_by = NULL, decided_reason = NULL,
    resolved_in = NULL, resolved_after = NULL, regressed_at = r.at, regressed_in = r.deploy_id
FROM unnest(%(ids)s::bigint[], %(ats)s::timestamptz[], %(deploy_ids)s::bigint[]) AS r(id, at, deploy_id)
WHERE f.id = r.id AND f.state = 'resolved'
