-- Sets how many jobs of each queue may be in Redis. NULL means automatic: live workers decide. The caller has
-- locked the rows.
-- Run by actions. Index: queues_pkey.
UPDATE opsjobs.queues SET prefetch = %(prefetch)s WHERE name = ANY (%(names)s::text[])
