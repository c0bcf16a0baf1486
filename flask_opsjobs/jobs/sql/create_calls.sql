-- Makes the table in which the calls of one unique `enqueue_many` gather: COPY knows no ON CONFLICT, and the keys of
-- all of them must be taken in order. The id is the job's, if it is inserted; n is the row's place, so that the first
-- wins. Run in the host's transaction, in a savepoint, by `enqueue_many`.
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
