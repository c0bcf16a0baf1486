-- Takes back that steps settled, and the counts of their run; a run that had ended runs again, and a request
-- to cancel it is forgotten. A wait opens again, and its time runs from then on. The caller holds the run's
-- lock.
-- Run by actions. Indexes: steps_pkey, workflows_pkey.
WITH before AS MATERIALIZED (
    SELECT job_id, settled FROM opsjobs.steps WHERE job_id = ANY (%(ids)s::bigint[])
), reopened AS (
    UPDATE opsjobs.steps s SET settled = NULL, settled_at = NULL, settled_by = NULL, passed_to = NULL,
        opened_at = NULL,
        released_at = CASE WHEN s.kind <> 'wait' THEN s.released_at END
    FROM before b WHERE s.job_id = b.job_id
)
UPDATE opsjobs.workflows w SET settled = w.settled - n.settled, finished = w.finished - n.finished,
    failed = w.failed - n.failed, canceled = w.canceled - n.canceled,
    state = 'running', ended_at = NULL, ended_by = NULL, ended_by_step = NULL,
    cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL,
    deadline_at = CASE WHEN w.deadline_at > %(now)s THEN w.deadline_at END
FROM (
    SELECT count(settled) AS settled, count(*) FILTER (WHERE settled = 'finished') AS finished,
        count(*) FILTER (WHERE settled = 'failed') AS failed,
        count(*) FILTER (WHERE settled = 'canceled') AS canceled FROM before) AS n
WHERE w.id = %(run)s
