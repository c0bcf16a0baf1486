"""The statements about failures walk their indexes, on 50,000 attempts of which few failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.support.database import Databases
from tests.support.plans import explain

_FILL = """
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at, started_at,
    ended_at, ended_by, dispatch_no)
SELECT n, 'task_' || n % 40, 'q', 'q', CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'finished' END, '{}', 5,
    now(), now(), now(), now() - n * interval '1 s',
    CASE WHEN n % 50 = 0 THEN 'exhausted' ELSE 'returned' END, 1
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome,
    failure_key, death, is_counted, deploy_id)
SELECT n, 1, 1, 7, 'w', now(), now() - n * interval '1 s',
    CASE WHEN n % 50 = 0 THEN 'raised' ELSE 'returned' END,
    CASE WHEN n % 50 = 0 THEN decode(lpad((n % 97)::text, 32, '0'), 'hex') END,
    CASE WHEN n % 500 = 0 THEN 'signal' END, n > 5000, CASE WHEN n % 50 = 0 THEN n % 20 END
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at, number,
    first_at, last_at, state, decided_at, decided_by)
SELECT n, decode(lpad(n::text, 32, '0'), 'hex'), 'task_' || n % 40, 'KeyError', n, 1,
    now() - n * interval '1 min', 1, now() - n * interval '1 min', now() - n * interval '1 min',
    CASE WHEN n % 100 = 0 THEN 'resolved' ELSE 'open' END, CASE WHEN n % 100 = 0 THEN now() END,
    CASE WHEN n % 100 = 0 THEN 'ada' END
FROM generate_series(1, 5000) AS n;
INSERT INTO opsjobs.deploys (version, at, source)
SELECT 'v' || n, now() - (6000 - n) * interval '1 h', 'command' FROM generate_series(1, 5000) AS n;
INSERT INTO opsjobs.workers (id, name, kind, host, pid, queues, state, started_at, heartbeat_at)
SELECT n, 'w' || n, 'pool', 'h', 1, '{q}', 'alive', now(), now() FROM generate_series(1, 2000) AS n
"""


@pytest.fixture(scope="module")
def big(databases: Databases) -> Iterator[Connection]:
    """A connection to a database with 50,000 attempts."""
    with databases.connection() as connection:
        for statement in _FILL.split(";"):
            connection.execute(statement)
        for table in ("jobs", "attempts", "failures", "deploys", "workers"):
            connection.execute(f"VACUUM ANALYZE opsjobs.{table}")
        yield connection


_KEY = bytes(15) + b"\x07"
# The statement, the index that it walks, and its parameters.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "take_uncounted": ("attempts_to_count", {"limit": 50}),
    "lock_failures_of_keys": ("failures_key_key", {"keys": [_KEY]}),
    "count_new_failures": ("failures_by_task", {"tasks": ["task_3"]}),
    "read_samples": ("attempts_pkey", {"job_ids": [5], "dispatch_nos": [1], "in_full": [True]}),
    "mark_counted": (
        "attempts_pkey",
        {"job_ids": [50], "dispatch_nos": [1], "keys": [_KEY], "deploy_ids": [None]},
    ),
    "lapse_failures": ("failures_by_state", {}),
    "infer_deploy_deaths": ("attempts_by_death", {}),
    "find_newest_deploy": ("deploys_by_version", {"version": "v70"}),
}


@pytest.mark.parametrize("statement", CASES)
def test_it_walks_its_index(big: Connection, statement: str) -> None:
    index, parameters = CASES[statement]
    (now,) = big.execute("SELECT now()").fetchone() or ()
    values = {"now": now, "since": now, "held_since": now, **parameters}
    nodes = explain(big, statement, values)
    assert index in {node.get("Index Name") for node in nodes}
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked.isdisjoint({"jobs", "attempts", "failures"})
