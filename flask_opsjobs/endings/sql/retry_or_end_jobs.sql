-- Decides by the outcomes of attempts whether each job is tried again or ends, and writes its next state, the
-- attempt and the output. Returns the jobs that it moved. Locks all jobs in id order before it writes, so
-- that two flushes cannot deadlock.
-- The fence: a job is moved only while it has the dispatch number of the outcome and is `started`, or
-- `queued` because a crash of Postgres lost the claim.
-- A worker that does not have the task, or does not accept the arguments, hands the job back. The job is due
-- again after 5 s, then 10 s, then every 20 s, until %(hand_back_for)s after the first time. This counts as
-- no attempt, because no function was called. A quarter of each wait is random: workers pop once a second, so
-- after equal waits the same worker would always be first.
-- An outcome tells how many seconds before %(now)s its function began and ended; without them the claim and
-- %(now)s count.
-- Rows: opsjobs, by origin.
-- Run by a worker's recorder, for one outcome or many. Index: jobs_pkey.
WITH o AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(outcomes)s::jsonb) AS o(
        id bigint, dispatch_no bigint, worker_id bigint, worker text, kind text, error text, traceback text,
        reason text, delay_seconds float8, ended_by text, output jsonb, keep_output bool, output_bytes int,
        output_omitted text, log_tail text, cause_of_death text, max_rss_kb bigint, done bigint, total bigint,
        note text, pid int, began_ago float8, ended_ago float8, death text, death_facts jsonb,
        failure_key text)
), locked AS MATERIALIZED (
    SELECT j.id, j.dispatch_no, j.state, j.max_attempts, j.cancel_requested_at, j.cancel_reason, j.started_at,
           j.attempt + (j.state = 'queued')::int AS attempt,
           CASE WHEN o.kind = 'not_run' AND o.ended_by IN ('unknown_task', 'invalid_args')
                THEN coalesce(j.first_handed_back_at, %(now)s) END AS first_handed_back_at
    FROM opsjobs.jobs j JOIN o USING (id) WHERE j.dispatch_no = o.dispatch_no AND j.origin = 'opsjobs'
    ORDER BY j.id FOR UPDATE OF j
), judged AS MATERIALIZED (
    SELECT o.*, l.attempt, l.cancel_reason,
        coalesce(%(now)s - o.began_ago * interval '1 s',
            CASE WHEN l.state = 'started' THEN l.started_at END, %(now)s) AS started_at,
        coalesce(%(now)s - o.ended_ago * interval '1 s', %(now)s) AS ended_at,
        l.first_handed_back_at,
        back.is_handed_back,
        CASE WHEN o.kind = 'returned' THEN 'finished'
             WHEN o.kind = 'discarded' OR (o.ended_by IS NOT NULL AND NOT back.is_handed_back) THEN 'failed'
             WHEN o.kind = 'canceled' OR l.cancel_requested_at IS NOT NULL THEN 'canceled'
             WHEN o.kind = 'snoozed' OR back.is_handed_back THEN 'scheduled'
             WHEN l.attempt < l.max_attempts THEN 'retryable' ELSE 'failed' END AS next,
        CASE WHEN back.is_handed_back
            THEN least(l.first_handed_back_at + %(hand_back_for)s::interval - %(now)s,
                least(%(now)s - l.first_handed_back_at + interval '5 s', interval '20 s')
                    * (0.75 + 0.25 * random()))
             ELSE coalesce(o.delay_seconds, 0) * interval '1 s' END AS delay
    FROM locked l JOIN o USING (id, dispatch_no)
    CROSS JOIN LATERAL (SELECT
        (l.first_handed_back_at + %(hand_back_for)s::interval > %(now)s) IS TRUE AS is_handed_back) AS back
    WHERE l.state IN ('queued', 'started')
), moved AS (
    UPDATE opsjobs.jobs j SET state = d.next, attempt = d.attempt - d.is_handed_back::int, error = d.error,
        started_at = d.started_at, worker_id = NULL, reserved_by = NULL, lost_reservations = 0,
        first_handed_back_at = d.first_handed_back_at,
        max_attempts = j.max_attempts + (d.next = 'scheduled' AND NOT d.is_handed_back)::int,
        due_at = CASE WHEN d.next IN ('scheduled', 'retryable') THEN %(now)s::timestamptz + d.delay
            ELSE j.due_at END,
        ended_at = CASE WHEN d.next IN ('finished', 'failed', 'canceled') THEN d.ended_at END,
        ended_by = CASE d.next WHEN 'finished' THEN 'returned' WHEN 'canceled' THEN 'canceled'
            WHEN 'failed' THEN coalesce(d.ended_by,
                CASE d.kind WHEN 'discarded' THEN d.kind ELSE 'exhausted' END) END,
        ended_reason = CASE WHEN d.next = 'canceled' THEN coalesce(d.cancel_reason, d.reason)
            ELSE d.reason END
    FROM judged d WHERE j.id = d.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique,
        j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, d.kind = 'not_run' AS is_not_run, j.due_at, j.started_at,
        j.ended_at, d.max_rss_kb AS peak_kb
), noted AS (
    INSERT INTO opsjobs.attempts AS a (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at,
        outcome, error, traceback, log_tail, cause_of_death, max_rss_kb, progress_done, progress_total,
        progress_note, pid, death, death_facts, failure_key)
    SELECT id, dispatch_no, attempt, worker_id, worker, started_at, ended_at,
        kind, error, traceback, log_tail, cause_of_death, max_rss_kb, done, total, note, pid, death,
        death_facts, decode(failure_key, 'hex') FROM judged
    ON CONFLICT (job_id, dispatch_no) DO UPDATE SET started_at = excluded.started_at,
        pid = coalesce(excluded.pid, a.pid), ended_at = excluded.ended_at, outcome = excluded.outcome,
        error = excluded.error, traceback = excluded.traceback, log_tail = excluded.log_tail,
        cause_of_death = excluded.cause_of_death, death = excluded.death,
        death_facts = excluded.death_facts, failure_key = excluded.failure_key,
        max_rss_kb = excluded.max_rss_kb, progress_done = coalesce(excluded.progress_done, a.progress_done),
        progress_total = coalesce(excluded.progress_total, a.progress_total),
        progress_note = coalesce(excluded.progress_note, a.progress_note)
), kept AS (
    INSERT INTO opsjobs.outputs (job_id, value, size_bytes, omitted, created_at)
    SELECT id, output, output_bytes, output_omitted, %(now)s
    FROM judged WHERE keep_output AND kind = 'returned'
    ON CONFLICT (job_id) DO UPDATE SET value = excluded.value, size_bytes = excluded.size_bytes,
        omitted = excluded.omitted, created_at = excluded.created_at
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id, is_not_run
FROM moved
