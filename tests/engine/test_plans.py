"""The statements of a worker walk their indexes, also with statistics from before a backlog came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.support.database import Databases
from tests.support.plans import explain, explain_prepared

_ENDED = """
INSERT INTO opsjobs.jobs
    (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at, ended_by)
SELECT 'w', 'q1', 'q1', 'finished', '{}', 5, now(), now(), now(), 'returned' FROM generate_series(1, 20000)
"""
_BACKLOG = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)
SELECT 'w', 'q7', 'q7', 'available', '{}', 5, now(), now() FROM generate_series(1, 50000)
"""
_ADOPTED = """
WITH new AS (
    INSERT INTO opsjobs.jobs (origin, rq_place, rq_id, rq_created_at, task, queue, lane, state, args, attempt,
        max_attempts, dispatch_no, created_at, due_at, dispatched_at, started_at, rq_status)
    SELECT 'rq', 'default', 'job-' || n, '2026-01-01 00:00Z', 'f', 'q1', 'q1', 'started', '{}', 1, 1, 1,
        '2026-01-01 00:00Z', now(), '2026-01-01 00:00Z', '2026-01-01 00:00Z', 'started'
    FROM generate_series(1, 20000) AS n
    RETURNING id, rq_id
), facts AS (
    INSERT INTO opsjobs.rq_facts (job_id, created_source, changed_at) SELECT id, 'rq', now() FROM new
)
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, execution_id)
SELECT id, 1, 1, 'w', now(), 'run of ' || rq_id FROM new
"""
_FIFTY = {
    "queues": [f"q{number}" for number in range(50)],
    "limit": 400,
    "bytes": 4_000_000,
    "waited": None,
    "worker_id": 1,
}


@pytest.fixture(scope="module")
def backlog(databases: Databases) -> Iterator[Connection]:
    """A database whose statistics know nothing of the 50,000 jobs that are due."""
    with databases.connection() as connection:
        connection.execute("ALTER TABLE opsjobs.jobs SET (autovacuum_enabled = false)")
        connection.execute(_ENDED)
        connection.execute("VACUUM ANALYZE opsjobs.jobs")
        connection.execute(_BACKLOG)
        yield connection


@pytest.mark.parametrize("explained", [explain, explain_prepared])
@pytest.mark.parametrize("waited", [None, timedelta(milliseconds=10)])
@pytest.mark.parametrize("limit", [1, 400])
def test_a_take_reads_the_jobs_that_it_takes(
    backlog: Connection, explained: Any, limit: int, waited: timedelta | None
) -> None:
    nodes = explained(backlog, "take_jobs", {**_FIFTY, "limit": limit, "waited": waited})
    walks = [node for node in nodes if node.get("Index Name") == "jobs_due"]
    assert [node["Node Type"] for node in walks] == ["Index Scan"]
    assert walks[0]["Actual Rows"] * walks[0]["Actual Loops"] <= limit
    kinds = {node["Node Type"] for node in nodes if node.get("Relation Name") == "jobs"}
    assert "Seq Scan" not in kinds
    assert not {node["Node Type"] for node in nodes} & {"Bitmap Heap Scan", "Bitmap Index Scan"}
    # What is sorted are the jobs that were picked, for the bound on their bytes.
    sorted_rows = [node["Actual Rows"] for node in nodes if "Sort" in node["Node Type"]]
    assert all(rows <= max(limit, 50) for rows in sorted_rows)
    (locks,) = [node for node in nodes if node["Node Type"] == "LockRows"]
    assert locks["Actual Rows"] * locks["Actual Loops"] <= limit


@pytest.mark.parametrize("explained", [explain, explain_prepared])
def test_a_dispatch_reads_the_jobs_that_it_takes(backlog: Connection, explained: Any) -> None:
    (now,) = backlog.execute("SELECT clock_timestamp()").fetchone() or (None,)
    parameters = {
        "lane": "q7",
        "queue": "q7",
        "prefetch": 100,
        "late_seconds": 45,
        "room": None,
        "most": None,
        "number": None,
        "now": now,
    }
    nodes = explained(backlog, "dispatch_lane", parameters)
    walks = [node for node in nodes if node.get("Index Name") == "jobs_due"]
    assert [node["Node Type"] for node in walks] == ["Index Scan"]
    assert walks[0]["Actual Rows"] <= 100


_KEYS = {"ids": [20_001, 20_002], "dispatch_nos": [1, 1]}
_WORKER = {"worker_id": 1, "worker": "w"}
_TIMES = {"began_ago": [0.1, 0.1], "ended_ago": [0.0, 0.0], "pids": [7, 7]}


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("reserve_deliveries", {**_KEYS, "worker_id": 1}),
        (
            "begin_jobs",
            {**_KEYS, **_WORKER, "ago": [0.1, 0.1], "pids": [7, 7], "is_durable": False},
        ),
        ("give_back_jobs", {**_KEYS, "worker_id": 1}),
        ("finish_jobs", {**_KEYS, **_WORKER, **_TIMES}),
    ],
)
@pytest.mark.parametrize("explained", [explain, explain_prepared])
def test_what_a_worker_writes_is_found_by_id(
    backlog: Connection, explained: Any, statement: str, parameters: dict[str, Any]
) -> None:
    (now,) = backlog.execute("SELECT clock_timestamp()").fetchone() or (None,)
    nodes = explained(backlog, statement, {**parameters, "now": now})
    kinds = {node["Node Type"] for node in nodes if node.get("Relation Name") == "jobs"}
    assert "Seq Scan" not in kinds
    assert "jobs_pkey" in {node.get("Index Name") for node in nodes}


@pytest.fixture(scope="module")
def adopted(databases: Databases) -> Iterator[Connection]:
    """A database of 20,000 adopted jobs, each with a run that RQ has told."""
    with databases.connection() as connection:
        connection.execute(_ADOPTED)
        connection.execute("VACUUM ANALYZE opsjobs.jobs, opsjobs.attempts, opsjobs.rq_facts")
        yield connection


@pytest.mark.parametrize("explained", [explain, explain_prepared])
@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        ("insert_jobs_of_runs", set()),
        ("lock_jobs_of_runs", {"jobs_of_rq"}),
        ("record_runs_of_plain_jobs", {"jobs_of_rq", "attempts_pkey", "rq_facts_pkey"}),
    ],
)
def test_a_record_of_plain_runs_reads_their_jobs(
    adopted: Connection, explained: Any, statement: str, indexes: set[str]
) -> None:
    runs = [
        {
            "rq_id": f"job-{number}",
            "queue": "q1",
            "function": "f",
            "created_at": "2026-01-01T00:00:00+00:00",
            "execution_id": f"run of job-{number}",
            "started_at": "2026-01-01T00:00:01+00:00",
            "ended_at": "2026-01-01T00:00:02+00:00",
            "status": "finished",
            "outcome": "returned",
            "pid": 1,
        }
        for number in range(1, 20_000, 100)
    ]
    parameters = {"rows": json.dumps(runs), "place": "default", "worker": "w", "worker_id": 1}
    nodes = explained(adopted, statement, parameters)
    assert indexes <= {node.get("Index Name") for node in nodes}
    scans = [node for node in nodes if "Scan" in node["Node Type"] and "Relation Name" in node]
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    assert all(node["Actual Rows"] * node["Actual Loops"] <= len(runs) for node in scans)
