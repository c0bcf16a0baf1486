-- Records when somebody first tried to execute a spent preview again. The caller holds the row.
-- Run by actions. Index: previews_pkey.
UPDATE opsjobs.previews SET reused_at = %(now)s WHERE id = %(id)s AND reused_at IS NULL
