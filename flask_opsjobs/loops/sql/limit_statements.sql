-- Limits how long each statement of this transaction may take.
-- Run by the loop detect at the start of a pass.
SELECT set_config('statement_timeout', %(limit)s, true)
