-- Counts the entries whose last missed slot came after %(since)s, with how many slots that outage had and when its last
-- one was. A run counts whole: it may have begun long before. Among the newest 1,000 rows, as the badge counts them.
-- Locks nothing. Run by cron/queries.py. Index: cron_slots_missed.
SELECT entry, sum(slots) AS slots, max(until_at) AS last_at
FROM (
    SELECT entry, slots, until_at FROM opsjobs.cron_slots WHERE result = 'missed' ORDER BY slot_at DESC LIMIT 1000
) AS newest
WHERE until_at > %(since)s
GROUP BY entry
