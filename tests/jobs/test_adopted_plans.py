"""Each statement about adopted jobs walks the indexes that it names, on 60,000 jobs, half of them adopted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.core import sql
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from tests.support import sources
from tests.support.database import Databases
from tests.support.plans import Nodes, explain, explain_prepared

# Only plans are asked of these rows: no writer of ours makes so many of them in a second.
_FILL = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at, dispatched_at, ended_at, ended_by)
SELECT 'task', 'mail', 'mail', s.state, '{}', 5, 1, 1, now(), now(), now(), s.ended_at, s.ended_by
FROM (VALUES ('queued', 500, NULL, NULL), ('finished', 29500, now(), 'returned'))
    AS s(state, many, ended_at, ended_by), LATERAL generate_series(1, s.many);
INSERT INTO opsjobs.jobs (origin, rq_place, rq_id, rq_created_at, task, queue, lane, state, args,
    max_attempts, attempt, dispatch_no, created_at, due_at, dispatched_at, ended_at, ended_by)
SELECT 'rq', p.place, 'job-' || n, timestamptz '2026-01-01 00:00Z', 'task', 'mail', 'mail', s.state, '{}', 1,
    1, 1, now(), now(), now(), s.ended_at, s.ended_by
FROM (VALUES ('default'), ('reports')) AS p(place), generate_series(1, 15000) AS n,
    LATERAL (SELECT CASE WHEN n % 50 = 0 THEN 'deferred' ELSE 'finished' END AS state,
        CASE WHEN n % 50 > 0 THEN now() END AS ended_at,
        CASE WHEN n % 50 > 0 THEN 'returned' END AS ended_by) AS s;
INSERT INTO opsjobs.rq_facts (job_id, structure, depends_on, created_source, changed_at)
SELECT id, 'finished', CASE WHEN state = 'deferred' THEN ARRAY['job-' || id % 1000] ELSE '{}' END, 'rq', now()
FROM opsjobs.jobs WHERE origin = 'rq';
INSERT INTO opsjobs.rq_views (job_id, function, arguments)
SELECT id, 'task', '[]' FROM opsjobs.jobs WHERE origin = 'rq';
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome)
SELECT id, a, a, 'w', now(), CASE WHEN state = 'finished' THEN now() END,
    CASE WHEN state = 'finished' THEN 'returned' END
FROM opsjobs.jobs, generate_series(1, 2) AS a;
INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, outcome, before, canonical,
    key_id, previous_hash, hash)
SELECT n, now() - (20000 - n) * interval '1 min', 'anna', 'page',
    CASE n % 20 WHEN 0 THEN 'job.delete' ELSE 'job.retry' END, 'job/1', 'done',
    '{"job/1": {"rq_place": "default", "rq_id": "job-1", "rq_created_at": null}}', '{}', 'key', '', 'x'
FROM generate_series(1, 20000) AS n;
"""
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PLACE = {"place": "default"}
# Ids of adopted jobs: the managed ones have those up to 30,000.
_IDS = {"ids": [30_050, 30_100]}
_RQ_IDS = {"rq_ids": ["job-7", "job-15", "gone"], "created_ats": [_NOW, None, _NOW]}
_LOOK = {"now": _NOW, "looked_at": datetime(2999, 1, 1, tzinfo=UTC), "before": _NOW}
_FACTS = '"depends_on": [], "allows_failure": false, "created_source": "rq"'
_TIMES = '"created_at": "2026-01-01", "due_at": "2026-01-01"'
_ROW = f"""{{"state": "deferred", "queue": "mail", "task": "t", "attempt": 1, "max_attempts": 1, {_TIMES},
    {_FACTS}, "id": 30050, "rq_id": "job-7", "rq_created_at": "2026-01-01"}}"""
_RUN = """{"job_id": 30050, "number": 1, "execution_id": "e", "worker": "w", "started_at": "2026-01-01",
    "ended_at": "2026-01-01", "outcome": "returned"}"""
# By statement: the indexes that it walks, and its parameters. Of some each index of their ids is as good.
_CASES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "lock_adopted_jobs": ({"jobs_of_rq", "jobs_pkey", "rq_facts_pkey"}, {**_PLACE, **_RQ_IDS}),
    "list_open_adopted_jobs": ({"jobs_open_of_rq"}, {**_PLACE, "after": 31_000, "limit": 100}),
    "list_runs_of_adopted_jobs": ({"attempts_pkey"}, _IDS),
    "observe_jobs": ({"jobs_pkey", "rq_facts_pkey"}, {**_LOOK, "rows": f"[{_ROW}]"}),
    "end_vanished_jobs": ({"jobs_pkey", "rq_facts_pkey", "attempts_pkey"}, {**_LOOK, **_IDS}),
    "list_parents_of_jobs": (
        {"jobs_pkey", "rq_facts_pkey", "jobs_of_rq"},
        {"ids": [30_050], "most": 20},
    ),
    "find_dependents_of_job": (
        {"jobs_pkey", "rq_facts_depends_on"},
        {"id": 30_050, "most": 20},
    ),
    "note_cancel_of_rq": (set(), {**_LOOK, **_IDS, "actor": "anna", "reason": "why"}),
    "forget_cancel_of_rq": (set(), _IDS),
}
# What they insert has no scan: Postgres looks in the index for a row that is there already.
_INSERTS: dict[str, dict[str, Any]] = {
    "insert_adopted_jobs": {**_PLACE, **_LOOK, "rows": f"[{_ROW}]"},
    "write_rq_views": {"rows": '[{"id": 30050, "function": "f"}]'},
    "write_runs_of_adopted_jobs": {"rows": f"[{_RUN}]"},
}
_LARGE = {"jobs", "attempts", "rq_facts", "rq_views"}


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Connection]:
    with databases.connection() as connection:
        for statement in _FILL.split(";"):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
        yield connection


def _walked(nodes: Nodes) -> set[str]:
    return {str(node["Index Name"]) for node in nodes if "Index Name" in node}


def _read_whole(nodes: Nodes) -> set[str]:
    return {
        node["Relation Name"]
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in _LARGE
    }


@pytest.mark.parametrize("make_plan", [explain, explain_prepared])
@pytest.mark.parametrize("name", _CASES)
def test_a_statement_walks_its_indexes(filled: Connection, name: str, make_plan: Any) -> None:
    indexes, parameters = _CASES[name]
    nodes = make_plan(filled, name, parameters)
    assert indexes <= _walked(nodes)
    assert _read_whole(nodes) == set()


@pytest.mark.parametrize("name", _INSERTS)
def test_an_insert_reads_no_table(filled: Connection, name: str) -> None:
    nodes = explain(filled, name, _INSERTS[name])
    assert _read_whole(nodes) == set()


def test_whether_there_are_open_ones_is_asked_of_their_index(filled: Connection) -> None:
    nodes = explain(filled, "has_plain_rq", {})
    assert "jobs_open_of_rq" in _walked(nodes)
    assert _read_whole(nodes) == set()


@pytest.mark.parametrize("make_plan", [explain, explain_prepared])
def test_what_was_deleted_is_read_from_the_end_of_the_audit(
    filled: Connection, make_plan: Any
) -> None:
    parameters = {**_PLACE, "since": read_clock(filled) - timedelta(minutes=90)}
    assert len(filled.execute(sql.load("list_deleted_adopted_jobs"), parameters).fetchall()) == 5
    nodes = make_plan(filled, "list_deleted_adopted_jobs", parameters)
    assert _walked(nodes) <= {"audit_by_action", "audit_by_time", "audit_events_pkey"}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    # Of 20,000 events, one a minute.
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes) < 150


def test_every_statement_about_adopted_jobs_is_in_the_tables() -> None:
    """But those of detectors, which tests/lifeline/test_detector_plans.py explains, those that record runs,
    which tests/engine/test_plans.py explains, and that of operations, which tests/operations/test_plans.py
    explains.
    """
    of_detectors = {"list_next_plain_jobs", "list_started_adopted"}
    of_runs = {"lock_jobs_of_runs", "record_runs_of_plain_jobs"}
    wanted = {
        path.stem
        for path in sources.files("flask_opsjobs", "*.sql")
        if "-- Rows: rq.\n" in path.read_text() and not path.stem.startswith("detect_")
    }
    assert wanted == {
        *_CASES,
        *_INSERTS,
        *of_detectors,
        *of_runs,
        "has_plain_rq",
        "find_next_place",
    }
