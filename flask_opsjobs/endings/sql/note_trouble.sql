-- Notes why a run cannot be advanced, or with null that it can be again. Skips a run that is locked.
-- Run by `advance` and after it failed. Index: workflows_pkey.
UPDATE opsjobs.workflows SET trouble = %(trouble)s
WHERE id IN (
    SELECT id FROM opsjobs.workflows WHERE id = %(id)s AND trouble IS DISTINCT FROM %(trouble)s
    FOR NO KEY UPDATE SKIP LOCKED)
