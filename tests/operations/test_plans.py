"""Each statement of operations walks the index it names: three operations of 20,000 rows, on 50,000 jobs."""

from __future__ import annotations

import operator
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.lifeline.test_plans import _header as header
from tests.lifeline.test_plans import big as big
from tests.support.engine import Bench
from tests.support.plans import explain, explain_prepared

_SETUP = """
INSERT INTO opsjobs.operations (state, action, actor, via, is_trusted, reason, targets, done, proven,
    created_at, expires_at, started_at, ended_at)
SELECT CASE WHEN n <= 3 THEN 'running' ELSE 'finished' END, 'job.retry', 'anna', 'page', false, 'why', 20000,
    20, 9980, now(), now(), now(), CASE WHEN n > 3 THEN now() - n * interval '1 hour' END
FROM generate_series(1, 3000 * (SELECT (count(*) = 0)::int FROM opsjobs.operations)) AS n;
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no, attempt,
    result, at, proven_at)
SELECT o, n, n, 'queue_1', 'opsjobs', 'failed', 1, 1,
    CASE WHEN n <= 9980 THEN 'proven' WHEN n <= 10000 THEN 'done' ELSE 'pending' END,
    CASE WHEN n <= 10000 THEN now() END, CASE WHEN n <= 9980 THEN now() END
FROM generate_series(1, 3) AS o,
    generate_series(1, 20000 * (SELECT (count(*) = 0)::int FROM opsjobs.operation_rows)) AS n;
ANALYZE opsjobs.operations;
ANALYZE opsjobs.operation_rows
"""
LATER = datetime(2999, 1, 1, tzinfo=UTC)
NOW = datetime.now(UTC)
CASES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "list_open_operations": ({"operations_open"}, {"after": 0, "limit": 101}),
    "expire_drafts": ({"operations_open"}, {"now": NOW}),
    "look_at_operations": ({"operations_pkey", "operations_open"}, {"ids": [2], "actor": "anna"}),
    "find_next_place": ({"operations_pkey", "operation_rows_pkey", "jobs_adopted"}, {"id": 2}),
    "list_next_rows": (
        {"operation_rows_pkey"},
        {"id": 2, "low": 10_000, "high": 20_000, "limit": 200},
    ),
    "prove_operation_rows": (
        {"operation_rows_done", "jobs_pkey", "attempts_pkey"},
        {"id": 2, "now": NOW},
    ),
    "read_proof_of_stage": (
        {"operation_rows_done", "operation_rows_by_result", "operation_rows_proven"},
        {"id": 2, "low": 111, "high": 20_000, "begun_after": 0},
    ),
    "read_room_of_queues": (
        {"operation_rows_done", "jobs_pkey"},
        {"id": 2, "queues": ["queue_1"], "prefetch": None, "late_seconds": 45, "now": NOW},
    ),
    "write_receipts": (
        {"operation_rows_pkey"},
        {
            "id": 2,
            "low": 10_001,
            "high": 10_200,
            "numbers": list(range(10_001, 10_201)),
            "results": ["done"] * 200,
            "codes": [None] * 200,
            "sentences": [None] * 200,
            "new_job_ids": [None] * 200,
            "now": NOW,
        },
    ),
    "list_samples_of_draft": (
        {"operation_rows_pkey"},
        {"id": 2, "places": [0.1, 0.5, 0.9]},
    ),
    "detect_stopped_operations": ({"operations_ended"}, {"now": NOW, "limit": 200}),
    "retain_operation_rows": (
        {"operations_ended", "operation_rows_pkey"},
        {"before": datetime(2020, 1, 1, tzinfo=UTC), "now": NOW, "limit": 1000},
    ),
    "retain_operations": (
        {"operations_ended", "operation_rows_pkey"},
        {"before": datetime(2020, 1, 1, tzinfo=UTC), "now": NOW, "limit": 1000},
    ),
}


_FROZEN = """
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no, attempt,
    result, at, proven_at)
SELECT 2, n, n, 'queue_1', 'opsjobs', 'failed', 1, 1,
    CASE WHEN n <= %(proven)s THEN 'proven' WHEN n <= %(done)s THEN 'done' ELSE 'pending' END,
    CASE WHEN n <= %(done)s THEN now() END, CASE WHEN n <= %(proven)s THEN now() END
FROM generate_series(1, 12000) n
"""


@pytest.mark.parametrize(
    ("statement", "proven", "done", "most"),
    [("write_receipts", 0, 10_000, [200]), ("read_proof_of_stage", 150, 170, [20, 100, 150])],
)
@pytest.mark.parametrize("how", [explain, explain_prepared])
def test_before_anybody_analyzes_it_only_the_rows_in_question_are_read(
    bench: Bench, statement: str, proven: int, done: int, most: list[int], how: Any
) -> None:
    """Postgres knows nothing yet of an operation that was frozen a moment ago."""
    operation, *_ = _SETUP.split(";")
    bench.connection.execute(operation)
    bench.connection.execute(_FROZEN, {"proven": proven, "done": done})
    _, parameters = CASES[statement]
    nodes = how(bench.connection, statement, parameters)
    read = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") == "operation_rows" and "Scan" in node["Node Type"]
    ]
    assert len(read) == len(most)
    assert all(map(operator.le, sorted(read), most)), read


@pytest.mark.parametrize("statement", CASES)
def test_it_walks_its_indexes(big: Connection, statement: str) -> None:
    for setup in _SETUP.split(";"):
        big.execute(setup)
    indexes, parameters = CASES[statement]
    nodes = explain(big, statement, parameters)
    used = {node.get("Index Name") for node in nodes}
    assert indexes <= used
    assert {index for index in indexes if index not in header(statement)} == set()
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert scanned & {"jobs", "attempts", "operation_rows", "operations"} == set()
