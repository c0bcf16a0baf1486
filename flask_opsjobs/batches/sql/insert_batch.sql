-- Opens a batch. Returns its id.
-- Run in the host's transaction when a batch is opened.
INSERT INTO opsjobs.batches (name, state, created_at, on_end, on_failure, meta)
VALUES (%(name)s, 'open', clock_timestamp(), %(on_end)s::jsonb, %(on_failure)s::jsonb, %(meta)s::jsonb)
RETURNING id
