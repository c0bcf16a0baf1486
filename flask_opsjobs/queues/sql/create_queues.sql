-- Gives queues that have none their row, open and with an automatic prefetch. In the order of their names, so that two
-- operators cannot deadlock; whoever meets another's new row waits for its commit.
-- Run by actions before they lock. Index: queues_pkey.
INSERT INTO opsjobs.queues (name, created_at)
SELECT name, %(now)s FROM unnest(%(names)s::text[]) AS n(name) ORDER BY name
ON CONFLICT (name) DO NOTHING
