-- Notes how many jobs an operation has frozen, in all and by origin and state. The caller has just inserted
-- its row.
-- Run by operations. Index: operations_pkey.
UPDATE opsjobs.operations SET targets = %(targets)s, frozen = %(frozen)s WHERE id = %(id)s
