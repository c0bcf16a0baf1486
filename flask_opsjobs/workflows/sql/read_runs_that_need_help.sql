-- Reads the runs that need an operator, and why, the gravest first, each once, at most %(most_runs)s. The
-- inner statement says which they are, and takes the other parameters. Locks nothing.
-- Run by the page of workflows and the overview. Index: workflows_pkey, beside those of the inner statement.
SELECT w.id, w.name, w.state, w.steps, w.settled, w.finished, w.failed, w.canceled, w.created_at, w.ended_at,
    w.ended_by, w.ended_by_step, w.deadline_at, w.cancel_requested_at, w.cancel_requested_by, w.cancel_reason,
    w.end_no, w.trouble, need.why
FROM (
    SELECT run, why, place FROM (
        SELECT DISTINCT ON (run) run, why, place FROM (
            SELECT run, why, row_number() OVER () AS place FROM {list_runs_that_need_help.sql} AS needs
        ) AS placed ORDER BY run, place
    ) AS gravest ORDER BY place LIMIT %(most_runs)s
) AS need JOIN opsjobs.workflows w ON w.id = need.run ORDER BY need.place
