-- Finds runs of workflows that cannot be advanced, with what is in the way.
-- Run by the loop detect. Index: workflows_with_trouble.
SELECT id, name, trouble FROM opsjobs.workflows WHERE trouble IS NOT NULL ORDER BY id LIMIT %(limit)s
