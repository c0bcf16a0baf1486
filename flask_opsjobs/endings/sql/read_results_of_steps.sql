-- Reads the arguments of steps together with the results of other steps that they take. Returns a row per
-- step: the arguments as JSON text, their size in bytes, and a sentence when a result is missing.
-- A parameter `args.x` is the argument x of the calls that a map makes.
-- The result of a step that did not finish is null. The result of a map is the list of its members' results,
-- in the order of the elements; of a map that was skipped, it is the list that an operator gave.
-- LATERAL and OFFSET 0 read each result by its key: Postgres expects many more results than there are, and
-- would read all outputs.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: steps_pkey, steps_of_map, outputs_pkey, jobs_pkey.
WITH taken AS MATERIALIZED (
    SELECT s.job_id AS id, t.parameter, source.name AS source, source.job_id AS source_id, source.settled,
        t.ref -> 'all' IS NOT NULL AS is_list,
        ARRAY(SELECT jsonb_array_elements_text(t.ref -> 'path')) AS path
    FROM opsjobs.steps s CROSS JOIN LATERAL jsonb_each(s.takes) AS t(parameter, ref)
    JOIN opsjobs.steps source ON source.job_id = (t.ref ->> 'step')::bigint
    WHERE s.job_id = ANY (%(ids)s::bigint[])
), found AS MATERIALIZED (
    SELECT t.id, t.parameter, t.source,
        CASE WHEN t.settled <> 'finished' THEN 'null'::jsonb
            WHEN t.is_list AND jsonb_typeof(o.value) = 'array' THEN o.value
            WHEN t.is_list THEN coalesce(members.results, '[]'::jsonb)
            ELSE coalesce(o.value, 'null'::jsonb) #> t.path END AS value,
        CASE WHEN t.settled <> 'finished' THEN NULL
            WHEN t.is_list AND jsonb_typeof(o.value) = 'array' THEN NULL
            WHEN t.is_list THEN 'element ' || members.missing || ' of it was not kept'
            WHEN o.job_id IS NULL THEN 'it is not stored: its task was deployed without record_output=True, '
                'or it was deleted'
            WHEN o.omitted IS NOT NULL THEN 'it was not kept: ' || o.omitted
            WHEN coalesce(o.value, 'null'::jsonb) #> t.path IS NULL
            THEN 'it has no value at ' || array_to_string(t.path, '.') END AS missing
    FROM taken t
    LEFT JOIN LATERAL (SELECT * FROM opsjobs.outputs WHERE job_id = t.source_id OFFSET 0) AS o ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(CASE WHEN m.settled = 'finished' THEN coalesce(mo.value, 'null'::jsonb) END
                ORDER BY m.element) AS results,
            min(m.element) FILTER (WHERE m.settled = 'finished'
                AND (mo.job_id IS NULL OR mo.omitted IS NOT NULL)) AS missing
        FROM opsjobs.steps m
        LEFT JOIN LATERAL (
            SELECT * FROM opsjobs.outputs WHERE job_id = m.job_id OFFSET 0) AS mo ON true
        WHERE t.is_list AND m.map_of = t.source_id) AS members ON true
), merged AS MATERIALIZED (
    SELECT f.id,
        min(f.parameter || ' takes the result of step ' || f.source || ', but ' || f.missing) AS missing,
        j.args || coalesce(jsonb_object_agg(f.parameter, coalesce(f.value, 'null'::jsonb))
            FILTER (WHERE f.parameter NOT LIKE 'args.%%'), '{}'::jsonb) AS args,
        jsonb_object_agg(substr(f.parameter, 6), coalesce(f.value, 'null'::jsonb))
            FILTER (WHERE f.parameter LIKE 'args.%%') AS nested
    FROM found f CROSS JOIN LATERAL (SELECT args FROM opsjobs.jobs WHERE id = f.id OFFSET 0) AS j
    GROUP BY f.id, j.args
), whole AS MATERIALIZED (
    SELECT id, missing, CASE WHEN nested IS NULL THEN args
        ELSE jsonb_set(args, '{args}', args -> 'args' || nested) END AS args
    FROM merged
)
SELECT id, args::text AS args, octet_length(args::text) AS bytes, missing FROM whole ORDER BY id
