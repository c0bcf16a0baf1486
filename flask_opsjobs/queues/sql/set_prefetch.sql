-- Says how much of queues may lie in Redis; NULL leaves it to the live workers.
-- The caller holds the rows. Run by actions. Index: queues_pkey.
UPDATE opsjobs.queues SET prefetch = %(prefetch)s WHERE name = ANY (%(names)s::text[])
