-- Lets one dispatcher at a time read a bucket and dispatch for it: two that saw the same room would both fill
-- it. The advisory lock belongs to the transaction, so it works through PgBouncer. Claims do not wait for it.
-- Run by dispatch, before it reads the bucket of a limited lane.
SELECT pg_advisory_xact_lock(hashtextextended('opsjobs bucket ' || %(limiter)s || '|' || %(partition)s, 0))
