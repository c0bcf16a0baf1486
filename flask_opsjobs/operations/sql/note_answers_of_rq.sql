-- Notes what RQ answered about plain jobs, and counts it. A row without an answer stays as asked.
-- Run by the loop operate, after RQ was asked. Indexes: operation_rows_pkey, operations_pkey.
WITH counted AS MATERIALIZED (
    SELECT id FROM opsjobs.operations WHERE id = %(id)s FOR UPDATE
), noted AS (
    UPDATE opsjobs.operation_rows r SET result = answer.result, code = answer.code, says = answer.says
    FROM unnest(%(numbers)s::int[], %(results)s::text[], %(codes)s::text[], %(sentences)s::text[])
        AS answer (number, result, code, says)
    WHERE r.operation_id = (SELECT id FROM counted) AND r.number = answer.number AND r.result = 'asked'
      -- Otherwise the planner may read all rows of the operation.
      AND r.number BETWEEN %(low)s AND %(high)s
    RETURNING r.result
)
UPDATE opsjobs.operations SET asked = asked - (SELECT count(*) FROM noted),
    done = done + (SELECT count(*) FROM noted WHERE noted.result = 'done'),
    skipped = skipped + (SELECT count(*) FROM noted WHERE noted.result = 'skipped')
WHERE id = (SELECT id FROM counted)
