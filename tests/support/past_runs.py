"""Fills a database with runs by plain SQL, so that plans of statements about runs are realistic."""

from __future__ import annotations

from flask_opsjobs.core.db import Connection

# The runs, by what they are. A run of 20 steps is a chain, in which each step also waits for the one two
# steps before it.
ENDED = range(1, 1001)
RUNNING = range(1001, 1501)  # step 10 is an open wait in every second run, else it runs
WIDE = 1501  # a map that has 9,998 members, and a step that takes all their results
CHAIN = 1502  # 10,000 steps; the first has failed just now
READY = 1503  # 5,000 steps that wait for nothing any more
CANCELED = 1504  # 5,000 waiting steps of a run that somebody canceled just now

STATEMENTS = (
    """
    INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, created_at,
        ended_at, end_no, ended_by)
    SELECT n, 'name_' || n % 20, CASE WHEN n <= 1000 THEN 'finished' ELSE 'running' END, '{}', '', 20,
        CASE WHEN n <= 1000 THEN 20 ELSE 9 END, CASE WHEN n <= 1000 THEN 20 ELSE 9 END,
        now() - interval '1 day', CASE WHEN n <= 1000 THEN now() - n * interval '1 min' END,
        (n <= 1000)::int, CASE WHEN n <= 1000 THEN 'finished' END
    FROM generate_series(1, 1500) AS n
    """,
    """
    INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, created_at,
        cancel_requested_at, cancel_requested_by, cancel_reason)
    VALUES (1501, 'wide', 'running', '{}', '', 10000, 9999, 9999, now(), NULL, NULL, NULL),
        (1502, 'chain', 'running', '{}', '', 10000, 0, 0, now(), NULL, NULL, NULL),
        (1503, 'ready', 'running', '{}', '', 5000, 0, 0, now(), NULL, NULL, NULL),
        (1504, 'canceled', 'canceling', '{}', '', 5000, 0, 0, now(), now(), 'ops', 'why')
    """,
    # Jobs and steps of the runs of 20: ids 1 to 30,000.
    """
    CREATE TEMP TABLE made AS
    SELECT (run - 1) * 20 + position AS id, run, position, run <= 1000 OR position < 10 AS is_ended,
        run > 1000 AND position = 10 AS is_now, position IN (10, 15) AND run % 2 = 0 AS is_wait
    FROM generate_series(1, 1500) AS run CROSS JOIN generate_series(1, 20) AS position
    """,
    """
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
        ended_by, workflow_id, worker_id, started_at)
    SELECT id, 'task_' || position, 'default', 'default', CASE WHEN is_ended THEN 'finished'
            WHEN is_now AND NOT is_wait THEN 'started' ELSE 'deferred' END,
        '{"account": 7}', 5, now(), now(), CASE WHEN is_ended THEN now() - id * interval '1 s' END,
        CASE WHEN is_ended THEN 'returned' END, run, CASE WHEN is_now AND NOT is_wait THEN 1 + id % 30 END,
        now()
    FROM made
    """,
    """
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at,
        released_at, opened_at, signals, key, takes)
    SELECT id, run, 'step ' || position, position, CASE WHEN is_wait THEN 'wait' ELSE 'job' END,
        CASE WHEN is_ended OR is_now THEN 0 ELSE 2 END, CASE WHEN is_ended THEN 'finished' END,
        CASE WHEN is_ended THEN now() - id * interval '1 s' END, CASE WHEN is_ended OR is_now THEN now() END,
        CASE WHEN is_wait AND (is_ended OR is_now) THEN now() END,
        CASE WHEN is_wait THEN ARRAY[CASE position WHEN 10 THEN 'payment' ELSE 'approval' END] END,
        CASE WHEN is_wait THEN 'order-' || run ELSE '' END,
        CASE WHEN position > 10 THEN jsonb_build_object('customer', jsonb_build_object(
            'step', (run - 1) * 20 + 1, 'path', jsonb_build_array('id'))) END
    FROM made
    """,
    """
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT id, id + far, 'cancel' FROM made CROSS JOIN (VALUES (1), (2)) AS f(far) WHERE position + far <= 20
    """,
    # Jobs and steps of the large runs: ids 30,001 to 60,000.
    """
    CREATE TEMP TABLE large AS
    SELECT 30000 + n AS id, n, CASE WHEN n <= 10000 THEN 1501 WHEN n <= 20000 THEN 1502
            WHEN n <= 25000 THEN 1503 ELSE 1504 END AS run, n <= 9999 AS is_ended, n = 10001 AS is_failed
    FROM generate_series(1, 30000) AS n
    """,
    """
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
        ended_by, workflow_id)
    SELECT id, 'large', 'default', 'default',
        CASE WHEN is_ended THEN 'finished' WHEN is_failed THEN 'failed' ELSE 'deferred' END, '{}', 5, now(),
        now(), CASE WHEN is_ended OR is_failed THEN now() END,
        CASE WHEN is_ended THEN 'returned' WHEN is_failed THEN 'exhausted' END, run
    FROM large
    """,
    """
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, map_of, element, pending, settled,
        settled_at, released_at, takes)
    SELECT id, run, 'step ' || n, n, CASE WHEN n = 1 THEN 'map' WHEN n < 10000 THEN 'member' ELSE 'job' END,
        CASE WHEN n BETWEEN 2 AND 9999 THEN 30001 END, CASE WHEN n BETWEEN 2 AND 9999 THEN n - 2 END,
        CASE WHEN run IN (1502, 1504) AND NOT is_failed THEN 1 ELSE 0 END,
        CASE WHEN is_ended THEN 'finished' END, CASE WHEN is_ended THEN now() END,
        CASE WHEN is_ended OR is_failed THEN now() END,
        CASE WHEN n = 10000 THEN '{"pictures": {"step": 30001, "path": [], "all": true}}'::jsonb END
    FROM large
    """,
    """
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT id, 40000, 'cancel' FROM large WHERE is_ended
    UNION ALL SELECT id, id + 1, 'cancel' FROM large WHERE run = 1502 AND n < 20000
    """,
    """
    INSERT INTO opsjobs.outputs (job_id, value, size_bytes, created_at)
    SELECT id, '{"id": 7}', 9, now() FROM opsjobs.jobs WHERE state = 'finished'
    """,
    # Jobs of no run. Failed ones are not few.
    """
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
        ended_by)
    SELECT 'alone', 'default', 'default', CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'canceled' END, '{}', 5,
        now(), now(), now(), CASE WHEN n % 2 = 0 THEN 'exhausted' ELSE 'canceled' END
    FROM generate_series(1, 10000) AS n
    """,
    # Most signals were taken; some came before any wait for them; every tenth open wait has one by now.
    """
    INSERT INTO opsjobs.signals (name, key, at, by, outcome, taken_by, taken_at)
    SELECT 'payment', 'past-' || n, now(), 'host', 'taken', -n, now() FROM generate_series(1, 20000) AS n
    """,
    """
    INSERT INTO opsjobs.signals (name, key, at, by, outcome, dedupe)
    SELECT 'payment', 'order-' || n, now(), 'host', 'early', 'evt_' || n
    FROM generate_series(1010, 8000, 10) AS n
    """,
    """
    INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids)
    SELECT run, ARRAY[id] FROM made WHERE is_now AND run % 5 = 0
    UNION ALL SELECT run, ARRAY[id] FROM large WHERE n > 10000
    """,
    """
    INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at)
    SELECT 'w' || n, 'pool', 'h', n, '{default}', 'alive', now(), now() FROM generate_series(1, 30) AS n
    """,
    """
    INSERT INTO opsjobs.unique_locks (key, job_id, until, created_at)
    SELECT n::text::bytea, n, 'ended', now() FROM generate_series(1, 20000) AS n
    """,
)
_FILLED = "jobs steps edges outputs workflows signals workflow_end_events workers unique_locks"


def fill(connection: Connection) -> None:
    """Write all of it; 60,000 steps."""
    for sequence, last in (("jobs", 60_000), ("workflows", 1_504)):
        connection.execute("SELECT setval(%s::regclass, %s)", [f"opsjobs.{sequence}_id_seq", last])
    for statement in STATEMENTS:
        connection.execute(statement)
    for table in _FILLED.split():
        connection.execute(f"VACUUM ANALYZE opsjobs.{table}")
