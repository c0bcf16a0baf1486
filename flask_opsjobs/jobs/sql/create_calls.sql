-- Creates a temporary table for the calls of one unique `enqueue_many`. Two reasons: COPY has no ON CONFLICT,
-- and the keys of all calls must be taken in order. `id` is the id of the job if the call becomes one; `n` is
-- the number of the row: of two equal calls the first wins.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
CREATE TEMPORARY TABLE {calls} (
    n bigint GENERATED ALWAYS AS IDENTITY,
    id bigint DEFAULT nextval('opsjobs.jobs_id_seq') NOT NULL,
    args jsonb NOT NULL,
    lane text NOT NULL,
    limiter text,
    partition text,
    weight integer,
    keys text[] NOT NULL
) ON COMMIT DROP
