-- Lists the numbers of metrics that have one or two words for labels, and the version of the schema: metric,
-- label, second, number. Locks nothing.
-- Run by telemetry/queries.py. Indexes: incidents_active, and those of small tables.
SELECT 'opsjobs_cron_slots_total' AS metric, result AS label, NULL AS second, slots AS number
FROM opsjobs.slot_totals
UNION ALL
SELECT 'opsjobs_actions_total', action, outcome, decisions FROM opsjobs.action_totals
UNION ALL
SELECT 'opsjobs_incidents_open', class, NULL, count(*) FROM opsjobs.incidents
WHERE state <> 'resolved' GROUP BY class
UNION ALL
SELECT 'opsjobs_queue_paused', name, NULL, 1 FROM opsjobs.queues WHERE is_paused
UNION ALL
SELECT 'opsjobs_task_paused', task, NULL, 1 FROM opsjobs.task_pauses
UNION ALL
SELECT 'schema', NULL, NULL, max(version) FROM opsjobs.schema_version
