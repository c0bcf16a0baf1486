-- Opens failures again of which the decision has lapsed: an ignored one whose time has come, or that failed
-- more often than was allowed; one that was resolved in the next deploy before %(held_since)s, and no deploy
-- has come. It has not regressed then: somebody has decided about it since it did. Skips locked ones; a later
-- pass tries again.
-- Run by the roll_up loop. Indexes: failures_by_state, failure_minutes_pkey, deploys_pkey.
UPDATE opsjobs.failures SET state = 'open', decided_at = NULL, decided_by = NULL, decided_reason = NULL,
    resolved_after = NULL, ignored_until = NULL, ignored_until_number = NULL, ignored_rate = NULL,
    regressed_at = NULL, regressed_in = NULL
WHERE id = ANY (ARRAY(
    SELECT id FROM opsjobs.failures f
    WHERE state IN ('ignored', 'resolved') AND (
        ignored_until <= %(now)s OR ignored_until_number <= number
        OR ignored_rate < (
            SELECT sum(m.number) FROM opsjobs.failure_minutes m
            WHERE m.failure_id = f.id AND minute > %(now)s::timestamptz - interval '1 hour'
        )
        OR resolved_after IS NOT NULL AND decided_at < %(held_since)s
        AND resolved_after >= (SELECT coalesce(max(id), 0) FROM opsjobs.deploys)
    )
    ORDER BY id FOR UPDATE SKIP LOCKED
))
