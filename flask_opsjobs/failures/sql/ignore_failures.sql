-- Ignores failures: until a time, until so many more attempts have failed, or until more than so many fail in
-- an hour.
-- Run by actions, which have locked the rows. Index: failures_pkey.
UPDATE opsjobs.failures SET state = 'ignored', decided_at = %(now)s, decided_by = %(actor)s,
    decided_reason = %(reason)s, resolved_in = NULL, resolved_after = NULL,
    ignored_until = %(until)s, ignored_until_number = number + %(more)s, ignored_rate = %(rate)s
WHERE id = ANY (%(ids)s::bigint[])
