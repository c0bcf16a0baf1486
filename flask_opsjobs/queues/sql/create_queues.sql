-- Creates the missing rows of queues, open and with an automatic prefetch. Inserts them in the order of their
-- names, so that two operators cannot deadlock. Waits for the commit of another transaction that inserts the
-- same row.
-- Run by actions before they lock. Index: queues_pkey.
INSERT INTO opsjobs.queues (name, created_at)
SELECT name, %(now)s FROM unnest(%(names)s::text[]) AS n(name) ORDER BY name
ON CONFLICT (name) DO NOTHING
