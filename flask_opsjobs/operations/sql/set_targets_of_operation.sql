-- Notes how many jobs an operation has frozen. The caller has just inserted its row.
-- Run by operations. Index: operations_pkey.
UPDATE opsjobs.operations SET targets = %(targets)s WHERE id = %(id)s
