-- Begins a run, unless a run of this name with the same unique key is open: then it returns no row. The
-- insert waits for another transaction that begins a run with the same key; if that one rolls back, this one
-- goes on.
-- Run in the host's transaction, in a savepoint, by `start`. Index: workflows_open_key.
INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at, deadline_at, on_end,
    unique_key)
SELECT %(name)s, 'running', %(context)s::jsonb, %(shape)s, %(steps)s, now,
    now + %(deadline_seconds)s::double precision * interval '1 s', %(on_end)s::jsonb, %(unique_key)s::text
FROM (SELECT clock_timestamp() AS now) AS moment
ON CONFLICT (name, unique_key) WHERE ended_at IS NULL DO NOTHING
RETURNING id, created_at
