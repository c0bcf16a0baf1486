"""Each hot statement of lifeline and the loops walks the index it names, on 50,000 rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.support.database import Databases
from tests.support.plans import explain

# By one INSERT: 50,000 calls of the real writers would take a minute. Only plans are asked of these rows.
_JOBS = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, dispatch_no, created_at,
    due_at, dispatched_at, started_at, ended_at, ended_by, worker_id, deadline_at)
SELECT 'task_' || n %% 40, 'queue_' || n %% 7, 'queue_' || n %% 7, %(state)s, '{}', 5, 1, now(),
    now() + n * interval '1 s', now(), now(),
    CASE WHEN %(ended_by)s <> '' THEN now() - n * interval '1 s' END, nullif(%(ended_by)s, ''),
    CASE WHEN %(state)s = 'started' THEN 1 + n %% 30 END, now() + n * interval '1 min'
FROM generate_series(1, %(many)s) AS n
"""
_FILL = {
    "finished": (30_000, "returned"),
    "failed": (3_000, "exhausted"),
    "scheduled": (10_000, ""),
    "retryable": (2_000, ""),
    "available": (4_800, ""),
    "queued": (150, ""),
    "started": (50, ""),
}
_FAILURES = """
INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at, number,
    first_at, last_at)
SELECT n, decode(lpad(n::text, 32, '0'), 'hex'), 'task_' || n % 40, 'KeyError', n, 1, now(), 1,
    now() - n * interval '1 min', now() - n * interval '1 min' FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.failure_minutes (failure_id, minute, number)
SELECT n % 5000 + 1, now() - n * interval '1 min', 1 FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.failure_hours (failure_id, hour, number)
SELECT n % 5000 + 1, now() - n * interval '1 min', 1 FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.task_ends (task, quarter, finished)
SELECT 'task_' || n % 40, now() - n * interval '1 min', 1 FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.task_deaths (task, day, death, number)
SELECT 'task_' || n % 40, now() - n * interval '1 min', 'signal', 1 FROM generate_series(1, 20000) n;
"""
_OTHERS = """
INSERT INTO opsjobs.outputs (job_id, size_bytes, created_at)
SELECT id, 1, ended_at FROM opsjobs.jobs WHERE state = 'finished';
INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
SELECT n::text::bytea, n, CASE WHEN n % 2 = 0 THEN 'within' ELSE 'forever' END,
    CASE WHEN n % 2 = 0 THEN now() + n * interval '1 min' END, now() FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, ended_at)
SELECT 'e' || n, CASE WHEN n % 3 = 0 THEN 'plain' ELSE 'pool' END, 'h', n, '{default}',
    CASE WHEN n > 20 THEN 'stopped' ELSE 'alive' END, now() - n * interval '1 min', now(),
    CASE WHEN n > 20 THEN now() END FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)
SELECT 'loop_' || n % 7, 'p', now(), now() - n * interval '1 min', 1 FROM generate_series(1, 5000) n;
"""


@pytest.fixture(scope="module")
def big(databases: Databases) -> Iterator[Connection]:
    """A connection to a database with 50,000 jobs."""
    with databases.connection() as connection:
        # In one transaction: so `now()` is one moment in all.
        with connection.transaction():
            for statement in _FAILURES.split(";"):
                connection.execute(statement)
            for state, (many, ended_by) in _FILL.items():
                connection.execute(_JOBS, {"state": state, "many": many, "ended_by": ended_by})
            for statement in _OTHERS.split(";"):
                connection.execute(statement)
        tables = ("jobs", "outputs", "unique_locks", "workers", "loop_runs", "failures")
        numbers = ("failure_minutes", "failure_hours", "task_ends", "task_deaths")
        for table in (*tables, *numbers):
            connection.execute(f"VACUUM ANALYZE opsjobs.{table}")
        yield connection


def _now(connection: Connection) -> Any:
    """When the rows were made, however long ago: plans and their rows depend on the age of the rows."""
    row = connection.execute("SELECT created_at FROM opsjobs.jobs WHERE id = 1").fetchone()
    assert row is not None
    return row[0]


_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "stage_jobs": ("jobs_to_stage", {"limit": 5_000}),
    "expire_jobs": ("jobs_deadlines", {"limit": 1_000, "ids": None}),
    "list_abandoned_jobs": ("jobs_started", {}),
    "list_started_jobs": ("jobs_started", {"id": 7}),
    "list_queued_jobs": ("jobs_queued", {"after": 0, "seconds": 5, "limit": 20_000}),
    "list_reserved_deliveries": ("workers_alive", {}),
    "watch_workers": (
        "workers_alive",
        {"elapsed": 10, "missing_seconds": 120, "late_seconds": 45},
    ),
    "end_plain_workers": ("workers_alive", {"seen": [], "default_ttl_seconds": 480}),
    "find_valid_deliveries": ("jobs_pkey", {"ids": [1, 2, 3], "dispatch_nos": [1, 1, 1]}),
    "find_last_pass": ("loop_runs_latest", {"loop": "loop_3"}),
    "retain_outputs": ("outputs_to_retain", {"limit": 100}),
    "retain_unique_locks": ("unique_locks_to_retain", {"limit": 1_000}),
    "retain_failures": ("failures_to_retain", {"limit": 100}),
    "retain_failure_minutes": ("failure_minutes_to_retain", {"limit": 100}),
    "retain_failure_hours": ("failure_hours_to_retain", {"limit": 100}),
    "retain_task_ends": ("task_ends_to_retain", {"limit": 100}),
    "retain_task_deaths": ("task_deaths_to_retain", {"limit": 100}),
    "list_queues_of_pools": ("workers_alive", {"late_seconds": 45}),
    "recall_jobs": ("jobs_pkey", {"ids": [1, 2, 3], "dispatch_nos": [1, 1, 1]}),
    "count_failed_deliveries": (
        "jobs_pkey",
        {"ids": [1, 2, 3], "dispatch_nos": [1, 1, 1], "limit": 3},
    ),
}


@pytest.mark.parametrize("statement", _CASES)
def test_it_walks_its_index(big: Connection, statement: str) -> None:
    index, parameters = _CASES[statement]
    now = _now(big)
    # A few hours ago: older than most of what is there, as in real life.
    values = {"now": now, "before": now - timedelta(hours=8), **parameters}
    nodes = explain(big, statement, values)
    assert index in {node.get("Index Name") for node in nodes}
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked.isdisjoint({"jobs", "outputs", "unique_locks"})
    assert index in _header(statement)


def test_retention_reads_only_what_it_removes(big: Connection) -> None:
    state, now = "finished", _now(big)
    before = now - timedelta(seconds=_FILL[state][0] - 100)
    nodes = explain(big, "retain_jobs", {"state": state, "before": before, "limit": 1_000})
    (scan,) = [node for node in nodes if node.get("Index Name") == "jobs_alone_to_retain"]
    assert scan["Actual Rows"] <= 110
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert "jobs" not in walked


def test_a_pass_that_finds_nothing_due_reads_next_to_nothing(big: Connection) -> None:
    nodes = explain(big, "stage_jobs", {"now": _now(big) - timedelta(days=1), "limit": 5_000})
    (scan,) = [node for node in nodes if node.get("Index Name") == "jobs_to_stage"]
    assert scan["Actual Rows"] == 0


def test_a_rescue_of_reserved_jobs_reads_only_queued_ones(big: Connection) -> None:
    now = _now(big)
    values = {"worker_ids": [7], "ids": None, "reserved_before": now, "now": now, "limit": 1_000}
    nodes = explain(big, "rescue_reserved_jobs", values)
    scans = [node for node in nodes if node.get("Relation Name") == "jobs"]
    # Which of the two Postgres walks depends on its sample of the rows.
    assert {node.get("Index Name") for node in nodes} & {"jobs_queued", "jobs_by_state"}
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    assert max(node["Actual Rows"] for node in scans) <= _FILL["queued"][0]


def _header(statement: str) -> str:
    from flask_opsjobs.core.sql import _FILES

    lines = _FILES[statement].read_text().splitlines()
    return " ".join(line for line in lines if line.startswith("--"))
