-- Lists the next open runs of workflows after %(after)s, so many that they have %(steps)s steps together, or
-- one that has more; and whether no other open run follows. A loose merge of the two open states.
-- Run by the loop detect, which then checks their invariants. Index: workflows_by_state.
WITH next AS MATERIALIZED (
    SELECT id, steps FROM (
        (SELECT id, steps FROM opsjobs.workflows
         WHERE state = 'running' AND id > %(after)s ORDER BY state, id LIMIT %(limit)s + 1)
        UNION ALL
        (SELECT id, steps FROM opsjobs.workflows
         WHERE state = 'canceling' AND id > %(after)s ORDER BY state, id LIMIT %(limit)s + 1)
    ) AS open ORDER BY id LIMIT %(limit)s + 1
), summed AS (
    SELECT id, sum(steps) OVER (ORDER BY id) - steps AS steps_before,
        lead(id) OVER (ORDER BY id) IS NULL AS is_last
    FROM next
)
SELECT id, is_last FROM summed WHERE steps_before < %(steps)s ORDER BY id LIMIT %(limit)s
