"""Makes runs of workflows, signals and batches out of the copied jobs, for the pages' bench.

The first half of the table are steps of runs of five jobs, one after another. The jobs after it are members
of one batch; the other batches only have their counts. Runs that wait for a signal, and one run of 10,000
steps, have jobs of their own behind the table.
"""

from __future__ import annotations

from typing import Any

import psycopg

STEPS_OF_RUN, OPEN_RUNS, LAYERS, WIDTH = 5, 500, 100, 100
LARGE_BATCH, BATCHES = 1, 1_000


def runs_of(rows: int) -> int:
    """How many runs that have ended a table of so many jobs has."""
    return min(100_000, rows // 10)


def members_of(rows: int) -> int:
    """How many members its large batch has."""
    return min(1_000_000, rows // 10)


def large_run(rows: int) -> int:
    """The run of 10,000 steps; between it and those that have ended are the open ones."""
    return runs_of(rows) + OPEN_RUNS + 1


def columns(rows: int) -> dict[str, str]:
    """What the copy `n` of a job belongs to, in a table of so many."""
    steps = runs_of(rows) * STEPS_OF_RUN
    return {
        "workflow_id": f"CASE WHEN n <= {steps} THEN (n - 1) / {STEPS_OF_RUN} + 1 END",
        "batch_id": f"CASE WHEN n > {steps} AND n <= {steps + members_of(rows)} THEN {LARGE_BATCH} END",
    }


# What has ended says of itself what its jobs say.
_ENDED = (
    f"""
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at,
        released_at)
    SELECT id, workflow_id, 'step_' || (id - 1) %% {STEPS_OF_RUN}, (id - 1) %% {STEPS_OF_RUN}, 'job', 0,
        state, ended_at, created_at
    FROM opsjobs.jobs WHERE workflow_id IS NOT NULL
    """,
    f"""
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT job_id, job_id + 1, 'continue' FROM opsjobs.steps WHERE position < {STEPS_OF_RUN - 1}
    """,
    f"""
    INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, failed,
        canceled, created_at, started_at, ended_at, ended_by, ended_by_step, end_no)
    SELECT workflow_id, 'flow_' || workflow_id %% 40, CASE WHEN finished = {STEPS_OF_RUN} THEN 'finished'
            ELSE 'failed' END, '{{"account_id": 1}}', '', {STEPS_OF_RUN}, {STEPS_OF_RUN}, finished, failed,
        {STEPS_OF_RUN} - finished - failed, created_at, created_at, ended_at,
        CASE WHEN culprit IS NULL THEN 'finished' ELSE 'step' END, culprit, 1
    FROM (
        SELECT workflow_id, count(*) FILTER (WHERE settled = 'finished') AS finished,
            count(*) FILTER (WHERE settled = 'failed') AS failed, min(released_at) AS created_at,
            max(settled_at) AS ended_at, min(name) FILTER (WHERE settled <> 'finished') AS culprit
        FROM opsjobs.steps GROUP BY workflow_id) AS s
    """,
    """
    INSERT INTO opsjobs.signals (name, key, payload, at, by, outcome, taken_by, taken_at)
    SELECT 'payment', 'order-' || workflow_id, '{"amount": 990}', settled_at, 'host',
        CASE chance %% 10 WHEN 8 THEN 'late' WHEN 9 THEN 'unmatched' ELSE 'taken' END,
        CASE WHEN chance %% 10 < 8 THEN job_id END, CASE WHEN chance %% 10 < 8 THEN settled_at END
    FROM (SELECT *, abs(hashint8extended(job_id, 4)) AS chance FROM opsjobs.steps WHERE position = 2) AS s
    """,
    """
    INSERT INTO opsjobs.batch_ends (batch_id, state, ended_by, number)
    SELECT batch_id, state, ended_by, count(*) FROM opsjobs.jobs WHERE batch_id IS NOT NULL GROUP BY 1, 2, 3
    UNION ALL
    SELECT n, 'finished', 'returned', 1000 FROM generate_series(2, %(batches)s) AS n
    """,
    """
    INSERT INTO opsjobs.batches (id, name, state, enqueued, created_at, closed_at, ended_at, end_no)
    SELECT e.batch_id, 'import_' || e.batch_id %% 10,
        CASE WHEN bool_or(e.state = 'failed') THEN 'failed' ELSE 'finished' END, sum(e.number),
        %(now)s - interval '2 h', %(now)s - interval '1 h', %(now)s, 1
    FROM opsjobs.batch_ends e GROUP BY e.batch_id
    """,
)
# Each has one step that has ended, an open wait behind it, and one behind that; every tenth signal of theirs
# is ambiguous, and as many came early for nobody.
_OPEN = (
    """
    INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, created_at,
        started_at)
    SELECT %(runs)s + n, 'flow_' || n %% 40, 'running', '{"account_id": 1}', '', 3, 1, 1,
        %(now)s - interval '2 d' * n / %(open)s::float8, %(now)s - interval '2 d' * n / %(open)s::float8
    FROM generate_series(1, %(open)s) AS n
    """,
    """
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
        ended_by, workflow_id)
    SELECT %(rows)s + n * 3 - 2 + k, CASE k WHEN 1 THEN 'opsjobs.wait' ELSE 'process_invoice' END, 'billing',
        'billing', CASE k WHEN 0 THEN 'finished' ELSE 'deferred' END, '{"account_id": 1}', 3, %(now)s,
        %(now)s, CASE k WHEN 0 THEN %(now)s END, CASE k WHEN 0 THEN 'returned' END, %(runs)s + n
    FROM generate_series(1, %(open)s) AS n, generate_series(0, 2) AS k
    """,
    """
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at,
        released_at, opened_at, signals, key)
    SELECT %(rows)s + n * 3 - 2 + k, %(runs)s + n, 'step_' || k, k, CASE k WHEN 1 THEN 'wait' ELSE 'job' END,
        k / 2, CASE k WHEN 0 THEN 'finished' END, CASE k WHEN 0 THEN %(now)s END,
        CASE WHEN k < 2 THEN %(now)s END, CASE k WHEN 1 THEN %(now)s END,
        CASE k WHEN 1 THEN '{payment}'::text[] END, CASE k WHEN 1 THEN 'open-' || n ELSE '' END
    FROM generate_series(1, %(open)s) AS n, generate_series(0, 2) AS k
    """,
    """
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT %(rows)s + n * 3 - 2 + k, %(rows)s + n * 3 - 1 + k, 'cancel'
    FROM generate_series(1, %(open)s) AS n, generate_series(0, 1) AS k
    """,
    """
    INSERT INTO opsjobs.signals (name, key, payload, at, by, outcome)
    SELECT 'payment', k || '-' || n, '{"amount": 990}', %(now)s, 'host',
        CASE k WHEN 'open' THEN 'ambiguous' ELSE 'early' END
    FROM generate_series(10, %(open)s, 10) AS n, unnest('{open,nobody}'::text[]) AS k
    """,
)
# Layers of steps; each waits for two of the layer before. Nine layers in ten have ended.
_LARGE = (
    """
    INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, created_at,
        started_at)
    VALUES (%(large)s, 'large', 'running', '{}', '', %(steps)s, %(steps)s * 9 / 10, %(steps)s * 9 / 10,
        %(now)s - interval '1 h', %(now)s - interval '1 h')
    """,
    """
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at,
        started_at, ended_at, ended_by, workflow_id)
    SELECT %(first)s + n, 'send_receipt', 'mail', 'mail',
        CASE WHEN n < %(steps)s * 9 / 10 THEN 'finished' ELSE 'deferred' END, '{"customer_id": 1}', 3,
        %(now)s - interval '1 h', %(now)s,
        CASE WHEN n < %(steps)s * 9 / 10 THEN %(now)s - interval '1 h' * (1 - n / %(steps)s::float8) END,
        CASE WHEN n < %(steps)s * 9 / 10 THEN %(now)s - interval '1 h' * (0.99 - n / %(steps)s::float8) END,
        CASE WHEN n < %(steps)s * 9 / 10 THEN 'returned' END, %(large)s
    FROM generate_series(0, %(steps)s - 1) AS n
    """,
    """
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at,
        released_at)
    SELECT id, workflow_id, 'step_' || id - %(first)s, id - %(first)s, 'job',
        CASE WHEN state = 'deferred' THEN 2 ELSE 0 END, nullif(state, 'deferred'), ended_at, started_at
    FROM opsjobs.jobs WHERE workflow_id = %(large)s
    """,
    """
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT %(first)s + (layer - 1) * %(width)s + (place + k) %% %(width)s,
        %(first)s + layer * %(width)s + place, 'cancel'
    FROM generate_series(1, %(steps)s / %(width)s - 1) AS layer, generate_series(0, %(width)s - 1) AS place,
        generate_series(0, 1) AS k
    """,
)
_SEQUENCES = """
SELECT setval('opsjobs.jobs_id_seq', %(first)s + %(steps)s),
    setval(pg_get_serial_sequence('opsjobs.workflows', 'id'), %(large)s),
    setval(pg_get_serial_sequence('opsjobs.batches', 'id'), %(batches)s)
"""


def fill(connection: psycopg.Connection[Any], rows: int) -> None:
    """Make all of it around `rows` jobs, which have the `columns`. `connection` is in autocommit."""
    (now,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
    known = {
        "now": now,
        "rows": rows,
        "runs": runs_of(rows),
        "open": OPEN_RUNS,
        "large": large_run(rows),
        "first": rows + OPEN_RUNS * 3 + 1,
        "steps": LAYERS * WIDTH,
        "width": WIDTH,
        "batches": BATCHES,
    }
    connection.execute("SET session_replication_role = replica")  # no check of each foreign key
    for statement in (*_ENDED, *_OPEN, *_LARGE, _SEQUENCES):
        connection.execute(statement, known)
    connection.execute("RESET session_replication_role")
