-- Lists some jobs of a draft: its rows are cut into as many equal parts as there are %(places)s, and of each
-- part the job at its place, from 0 to 1, is listed. Lists all jobs of a draft with fewer rows, and none of
-- an operation that was started. Locks nothing.
-- Run by operations, for the samples of the preview. Indexes: operations_pkey or operations_open,
-- operation_rows_pkey.
SELECT row.job_id
FROM opsjobs.operations o
CROSS JOIN LATERAL unnest(%(places)s::float8[]) WITH ORDINALITY AS part (place, number)
CROSS JOIN LATERAL (
    SELECT least(o.targets, cardinality(%(places)s::float8[])) AS parts OFFSET 0) AS all_of
CROSS JOIN LATERAL (
    SELECT (part.number - 1) * o.targets / all_of.parts AS low, part.number * o.targets / all_of.parts AS high
    OFFSET 0) AS bound
CROSS JOIN LATERAL (
    SELECT r.job_id FROM opsjobs.operation_rows r
    WHERE r.operation_id = o.id
      AND r.number = (bound.low + 1 + floor(part.place * (bound.high - bound.low)))::int OFFSET 0) AS row
WHERE o.id = %(id)s AND o.state = 'draft' AND part.number <= all_of.parts
ORDER BY row.job_id
