-- Finds cron entries with slots that were missed within a day and that nobody has run since then. One row for
-- each entry that is neither paused nor retired.
-- Run by the loop detect. Indexes: cron_slots_missed, cron_slots_by_entry.
SELECT e.name AS entry, sum(m.slots) AS number, min(m.slot_at) AS first_at, max(m.until_at) AS last_at,
    (array_agg(m.why ORDER BY m.until_at DESC))[1] AS why
FROM (
    SELECT * FROM opsjobs.cron_slots WHERE result = 'missed' ORDER BY slot_at DESC LIMIT 1000
) AS m
JOIN opsjobs.cron_entries e ON e.name = m.entry AND NOT e.is_paused AND e.retired_at IS NULL
WHERE m.until_at > %(now)s::timestamptz - interval '1 day'
    AND NOT EXISTS (
        SELECT FROM opsjobs.cron_slots ran
        WHERE ran.entry = m.entry AND ran.result = 'manual' AND ran.decided_at >= m.decided_at)
GROUP BY e.name
ORDER BY e.name
LIMIT %(limit)s
