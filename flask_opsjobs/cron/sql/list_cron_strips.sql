-- Lists the newest rows of the run history of each entry, newest first. One short index scan per entry. Locks
-- nothing.
-- Run by cron/queries.py. Index: cron_slots_by_entry.
SELECT s.id, s.entry, s.slot_at, s.until_at, s.slots, s.result, s.why, s.decided_at,
    s.decided_by, s.job_id, s.job_state, s.ended_at
FROM unnest(%(names)s::text[]) AS wanted(name)
CROSS JOIN LATERAL (
    SELECT * FROM opsjobs.cron_slots c
    WHERE c.entry = wanted.name ORDER BY c.slot_at DESC, c.id DESC LIMIT %(most)s) AS s
ORDER BY s.entry, s.slot_at DESC, s.id DESC
