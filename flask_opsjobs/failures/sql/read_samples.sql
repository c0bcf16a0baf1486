-- Reads the errors of attempts, and the tracebacks of those of which %(in_full)s says so.
-- Run by the roll_up loop. Index: attempts_pkey.
SELECT a.job_id, a.dispatch_no, a.error, CASE WHEN s.in_full THEN a.traceback END
FROM unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[], %(in_full)s::bool[])
    AS s(job_id, dispatch_no, in_full)
JOIN opsjobs.attempts a USING (job_id, dispatch_no)
