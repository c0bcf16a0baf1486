-- Writes the progress of running attempts. Needs no lock: only one worker writes to an attempt.
-- Run by a worker's recorder. Index: attempts_pkey.
UPDATE opsjobs.attempts a SET progress_done = p.done, progress_total = p.total, progress_note = p.note
FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[], %(done)s::bigint[],
    %(total)s::bigint[], %(notes)s::text[])
    AS p(id, dispatch_no, done, total, note)
WHERE a.job_id = p.id AND a.dispatch_no = p.dispatch_no AND a.ended_at IS NULL
