"""Each statement of the actions walks the index it names, on 50,000 rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.lifeline.test_plans import _header as header
from tests.lifeline.test_plans import big as big
from tests.support.plans import explain

IDS = list(range(31_000, 31_100))
_END = {"state": "failed", "ended_by": "discarded", "reason": "why"}
# In the fixture a paused queue has no row yet, and nobody has previewed anything.
_SETUP = """
    INSERT INTO opsjobs.queues (name, is_paused, paused_at, paused_by, paused_reason, created_at)
    SELECT 'queue_' || n, at IS NOT NULL, at, who, who, now() FROM generate_series(0, 6) AS n,
        LATERAL (SELECT CASE WHEN n < 2 THEN now() END, CASE WHEN n < 2 THEN 'ops' END) AS paused(at, who)
    ON CONFLICT DO NOTHING;
    INSERT INTO opsjobs.previews (actor, via, action, targets, plan, fingerprint, created_at, expires_at)
    SELECT 'a', 'page', 'job.retry', '{}', '{}', '', now() - n * interval '1 min', now()
    FROM generate_series(1, 5000 * (SELECT (count(*) = 0)::int FROM opsjobs.previews)) AS n;
    ANALYZE opsjobs.queues; ANALYZE opsjobs.previews
"""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lock_jobs": ("jobs_pkey", {"with_batches": True}),
    "read_jobs": ("jobs_pkey", {}),
    "reschedule_jobs": (
        "jobs_pkey",
        {"sources": ["scheduled"], "due_at": datetime(2999, 1, 1, tzinfo=UTC)},
    ),
    "edit_jobs": (
        "jobs_pkey",
        {
            "sources": ["scheduled"],
            "rows": json.dumps(
                [
                    {
                        "id": 31_000,
                        "queue": "mail",
                        "priority": 1,
                        "lane": "mail",
                        "args": {},
                        "tags": [],
                    }
                ]
            ),
        },
    ),
    "read_calls": ("jobs_pkey", {}),
    "list_listeners": ("workers_alive", {"queues": ["queue_3"], "most": 20, "late_seconds": 45}),
    "move_unique_lock": ("unique_locks_by_job", {"id": 31_000, "keys": [b"key"]}),
    "retry_jobs": ("jobs_pkey", {"sources": ["failed"]}),
    "request_cancel": ("jobs_pkey", {"actor": "a", "reason": "why"}),
    "run_jobs_again": (
        "jobs_pkey",
        {"sources": ["failed"], "guarded": [], "traceparent": None, "tracestate": None},
    ),
    "delete_jobs": ("jobs_pkey", {"sources": ["failed"]}),
    "end_waiting_jobs": ("jobs_pkey", {"sources": ["scheduled"], **_END}),
    "take_unique_locks": ("jobs_pkey", {"lifetimes": [None] * 100}),
    "delete_expired_unique_locks": ("jobs_pkey", {}),
    "list_jobs_without_unique_lock": ("jobs_pkey", {}),
    "read_queues": ("jobs_by_queue", {"names": ["queue_3", "mail"], "declared": []}),
    "list_queued_in_paused": ("jobs_queued", {"queue": None, "limit": 20_000}),
    "read_subjects_of_notes": ("jobs_pkey", {"targets": ["job/31000", "worker/e7"]}),
    "lock_preview": ("previews_pkey", {"id": 7}),
    "retain_previews": (
        "previews_to_retain",
        {"limit": 100, "before": datetime(2020, 1, 1, tzinfo=UTC)},
    ),
}


@pytest.mark.parametrize("statement", CASES)
def test_it_walks_its_index(big: Connection, statement: str) -> None:
    for setup in _SETUP.split(";"):
        big.execute(setup)
    index, parameters = CASES[statement]
    nodes = explain(big, statement, {"now": datetime.now(UTC), "ids": IDS, **parameters})
    used = {node.get("Index Name") for node in nodes}
    # Started jobs are few, and here so are failed ones: the planner may as well begin with them.
    few = {"jobs_started", "jobs_unsuccessful_by_queue", "jobs_unsuccessful_by_task"}
    is_of_few = statement.startswith(("request_", "retry_", "reschedule_", "run_", "delete_jobs"))
    assert index in used or (is_of_few and few & used)
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked.isdisjoint({"jobs", "unique_locks", "previews"})
    assert index in header(statement)


def test_a_name_that_no_job_bears_costs_a_probe(big: Connection) -> None:
    names = {"names": [f"no_{n}" for n in range(50)], "declared": []}
    nodes = explain(big, "read_queues", names)
    read = [node["Actual Rows"] for node in nodes if node.get("Relation Name") == "jobs"]
    assert max(read) <= 1
