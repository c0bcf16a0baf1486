-- Bounds how long the rest of this transaction waits for a row that somebody else holds. Of the transaction, not of the
-- session, so that it passes PgBouncer.
-- Run by actions at the start of an execution.
SELECT set_config('lock_timeout', %(wait)s, true)
