"""The reads of the queues' and workers' pages walk the indexes that they name,
on tables as a busy host has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.web.app.host import reading
from tests.support.database import Databases
from tests.support.plans import app_on, explain

# By one INSERT each: the real writers would take minutes. Only plans are asked of these rows.
_FILL = """
INSERT INTO opsjobs.enqueue_counts (minute, queue, enqueued)
SELECT date_trunc('minute', now()) - n * interval '1 min', 'queue_' || q, n
FROM generate_series(1, 2000) n, generate_series(1, 20) q;
INSERT INTO opsjobs.rollups (minute, queue, finished)
SELECT date_trunc('minute', now()) - n * interval '1 min', 'queue_' || q, n
FROM generate_series(1, 2000) n, generate_series(1, 20) q;
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, dispatch_no, created_at, due_at,
    started_at)
SELECT 'w', 'q', 'q', 'started', '{}', 5, 1, now(), now(), now() FROM generate_series(1, 30000);
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at)
SELECT id, 1, 1, 'e', now() FROM opsjobs.jobs;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, reserved)
SELECT 'e' || n, 'pool', 'h', n, '{q}', 'alive', now(), now(), ARRAY[n || '-1', 'odd']
FROM generate_series(1, 3000) n
"""


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.commit()
    session.execute(
        text("ANALYZE opsjobs.enqueue_counts, opsjobs.rollups, opsjobs.jobs, opsjobs.attempts")
    )
    session.execute(text("ANALYZE opsjobs.workers"))


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Flask]:
    """A host with 30,000 jobs and the counts of 2,000 minutes."""
    with app_on(databases, _fill) as app:
        yield app


@pytest.mark.parametrize(
    ("statement", "indexes", "most"),
    [
        ("sum_rates", {"enqueue_counts_pkey", "rollups_pkey"}, 61 * 20),
        (
            "list_reserved_jobs",
            {"workers_pkey", "jobs_pkey", "attempts_pkey", "attempts_by_death"},
            100,
        ),
    ],
)
def test_a_page_s_read_walks_its_indexes(
    statement: str, indexes: set[str], most: int, filled: Flask
) -> None:
    with filled.app_context(), reading() as read:
        since = read.now - timedelta(hours=1)
        asked = {"since": since, "worker_ids": list(range(1, 51)), "limit": 500}
        raw: Any = read.session.connection().connection.driver_connection
        nodes = explain(raw, statement, asked)
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert indexes <= used
    walked = [node for node in nodes if node.get("Index Name") in indexes]
    assert all(node["Actual Rows"] * node["Actual Loops"] <= most for node in walked)
    assert not [
        node
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "rollup_position"
    ]
