-- Finds the action and the targets of a preview. Locks nothing.
-- Run by actions before an execution that needs to know what Redis says. Index: previews_pkey.
SELECT action, targets FROM opsjobs.previews WHERE id = %(id)s
