-- Moves the times of all jobs, their attempts, unique locks, workflows and steps back, as if time had passed.
-- Rows: both.
-- Locks every row that it changes, and has no limit: the database of a host's test is small.
-- Run by a host's tests. No index: it changes all rows.
WITH of_attempts AS (
    UPDATE opsjobs.attempts
    SET started_at = started_at - %(by)s::interval, ended_at = ended_at - %(by)s::interval
), of_locks AS (
    UPDATE opsjobs.unique_locks
    SET created_at = created_at - %(by)s::interval, expires_at = expires_at - %(by)s::interval
), of_workflows AS (
    UPDATE opsjobs.workflows
    SET created_at = created_at - %(by)s::interval,
        started_at = started_at - %(by)s::interval,
        deadline_at = deadline_at - %(by)s::interval,
        ended_at = ended_at - %(by)s::interval,
        cancel_requested_at = cancel_requested_at - %(by)s::interval
), of_steps AS (
    UPDATE opsjobs.steps
    SET opened_at = opened_at - %(by)s::interval,
        released_at = released_at - %(by)s::interval,
        expanded_at = expanded_at - %(by)s::interval,
        settled_at = settled_at - %(by)s::interval
)
UPDATE opsjobs.jobs
SET created_at = created_at - %(by)s::interval,
    due_at = due_at - %(by)s::interval,
    deadline_at = deadline_at - %(by)s::interval,
    dispatched_at = dispatched_at - %(by)s::interval,
    started_at = started_at - %(by)s::interval,
    ended_at = ended_at - %(by)s::interval,
    cancel_requested_at = cancel_requested_at - %(by)s::interval,
    first_handed_back_at = first_handed_back_at - %(by)s::interval
