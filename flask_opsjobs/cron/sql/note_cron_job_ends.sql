-- Records in slots how their jobs ended. Run by endings, in the transaction of the end. Index:
-- cron_slots_by_job.
UPDATE opsjobs.cron_slots s SET job_state = w.state, ended_at = %(now)s
FROM unnest(%(ids)s::bigint[], %(states)s::text[]) AS w(id, state)
WHERE s.job_id = w.id
