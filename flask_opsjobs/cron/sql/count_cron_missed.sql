-- Lists the entries with a missed slot after %(since)s: how many slots were missed, and when the last one was
-- due. A row that stands for many slots counts whole, even if it began long before. Reads the newest 1,000
-- missed rows, as the badge does. Locks nothing. Run by cron/queries.py. Index: cron_slots_missed.
SELECT entry, sum(slots) AS slots, max(until_at) AS last_at
FROM (
    SELECT entry, slots, until_at FROM opsjobs.cron_slots WHERE result = 'missed'
    ORDER BY slot_at DESC LIMIT 1000
) AS newest
WHERE until_at > %(since)s
GROUP BY entry
