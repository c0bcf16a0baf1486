-- Resolves failures: in a deploy, or in the first one after another. A failure that was resolved or ignored
-- gets the new decision.
-- Run by actions, which have locked the rows. Index: failures_pkey.
UPDATE opsjobs.failures SET state = 'resolved', decided_at = %(now)s, decided_by = %(actor)s,
    decided_reason = %(reason)s, resolved_in = %(resolved_in)s, resolved_after = %(resolved_after)s,
    ignored_until = NULL, ignored_until_number = NULL, ignored_rate = NULL
WHERE id = ANY (%(ids)s::bigint[])
