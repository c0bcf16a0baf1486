"""The pages of tasks read the hours that they show and no more, with 2,000 tasks of which 50 are busy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.web.app import shell
from tests.support.plans import Plans, app_on

# Of 2,000 tasks 50 are busy in each hour of 30 days, the others once a day. By one INSERT each.
_FILL = """
INSERT INTO opsjobs.task_hours (task, hour, enqueued, finished, failed, waits, runs)
SELECT 'task_' || t, date_trunc('hour', now()) - n * interval '1 h', 9, 8, 1, '{0,0,9}', '{0,0,0,0,9}'
FROM generate_series(1, 2000) AS t, generate_series(0, 719) AS n WHERE t <= 50 OR n % 24 = t % 24;
INSERT INTO opsjobs.task_minutes (task, minute, enqueued, finished, failed, waits, runs)
SELECT 'task_' || t, date_trunc('minute', now()) - n * interval '1 min', 9, 8, 1, '{0,0,9}', '{0,0,0,0,9}'
FROM generate_series(1, 20) AS t, generate_series(0, 4319) AS n;
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, attempt, created_at, due_at,
    started_at, ended_at, ended_by, dispatch_no)
SELECT n, 'task_' || n % 3, 'q', 'q', CASE WHEN n % 100 < 3 THEN 'available' ELSE 'finished' END, '{}', 5, 1,
    now(), now(), now(), CASE WHEN n % 100 >= 3 THEN now() END, CASE WHEN n % 100 >= 3 THEN 'returned' END, 1
FROM generate_series(1, 30000) AS n
"""
TABLES = ("task_hours", "task_minutes", "jobs")


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.commit()
    session.execute(text(f"ANALYZE {', '.join(f'opsjobs.{table}' for table in TABLES)}"))


@pytest.fixture(scope="module")
def filled(databases: Any) -> Iterator[Flask]:
    """A host with a month of 2,000 tasks."""
    with app_on(databases, _fill) as app:
        yield app


# By page: the table, the indexes that are walked, and the most rows that one scan may read: of a day 50 tasks
# each hour and 1,950 once.
CASES: dict[tuple[str, str], tuple[set[str], int]] = {
    ("/tasks", "task_hours"): ({"task_hours_by_hour", "task_hours_pkey"}, 3_150),
    ("/tasks?sort=p95&against=week", "task_hours"): (
        {"task_hours_by_hour", "task_hours_pkey"},
        3_150,
    ),
    # Both days at once.
    ("/tasks/task_1", "task_hours"): ({"task_hours_by_hour", "task_hours_pkey"}, 48),
    ("/tasks/task_1", "task_minutes"): ({"task_minutes_pkey"}, 2_880),
    ("/tasks/task_1?window=month", "task_hours"): ({"task_hours_by_hour", "task_hours_pkey"}, 720),
    ("/tasks/task_1", "jobs"): ({"jobs_by_task"}, 1_000),
}


@pytest.mark.parametrize(("path", "table"), CASES)
def test_a_page_walks_its_indexes(
    filled: Flask, path: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes, most = CASES[path, table]
    # What surrounds the page is read before, and kept.
    monkeypatch.setattr(shell, "_KEPT", timedelta(hours=1))
    assert filled.test_client().get("/ops/jobs/help").status_code == 200

    class Seen(Plans):
        about = f"opsjobs.{table}"

    with Seen(filled.extensions["opsjobs"].pages) as plans:
        assert filled.test_client().get(f"/ops/jobs{path}").status_code == 200
    # Statements about this table name others too.
    nodes = [
        node
        for _, found in plans.seen
        for node in found
        if node.get("Relation Name") == table or node.get("Index Name") in indexes
    ]
    assert {node.get("Index Name") for node in nodes} <= indexes, plans
    assert nodes, plans
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in nodes]
    assert max(read) <= most, plans


def test_all_tasks_are_listed(filled: Flask) -> None:
    page = filled.test_client().get("/ops/jobs/tasks").text
    assert "2,000 tasks" in page
    assert "1 to 50 of 2,000" in page
