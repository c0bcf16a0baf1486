-- Sets how long the rest of this transaction waits for a locked row. The setting belongs to the transaction,
-- not to the session, so it works through PgBouncer.
-- Run by actions at the start of an execution.
SELECT set_config('lock_timeout', %(wait)s, true)
