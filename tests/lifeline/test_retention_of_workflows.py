"""Retention of runs: each goes whole, by its own end and state, and nothing of an open run goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.lifeline import retention
from flask_opsjobs.settings import Settings
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.conftest import MakeBench
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.support.plans import explain

TABLES = ("jobs", "steps", "edges", "workflows", "callbacks", "outputs", "attempts")


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


@pytest.fixture
def settings(bench: Bench) -> Settings:
    return replace(
        bench.host.settings,
        keep_finished_days=2,
        keep_canceled_days=3,
        keep_failed_days=4,
        keep_output_days=1,
        keep_signals_days=5,
    )


def make_ended(bench: Bench, days: float, end: str = "finished", *, steps: str = "a b c") -> Graph:
    """A run whose first step ended 50 days ago, and which itself ended so many days ago."""
    names = steps.split()
    edges = [f"{names[0]} {name}" for name in names[1:]]
    graph = Graph.make(bench.connection, steps, edges)
    for name in names:
        if graph.states()[name] != "canceled":
            graph.end(name, end if name == names[-1] else "finished")
            advance(bench.connection, graph.run, 1_000)
    bench.connection.execute(
        "UPDATE opsjobs.workflows SET ended_at = ended_at - %s * interval '1 day' WHERE id = %s",
        [days, graph.run],
    )
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET ended_at = ended_at - interval '50 days' WHERE id = %s",
        [graph.ids[names[0]]],
    )
    assert graph.row()["ended_at"] is not None
    return graph


def left(bench: Bench, table: str, column: str) -> set[Any]:
    return {row[column] for row in bench.rows(f"SELECT {column} FROM opsjobs.{table}")}


def removed_by(bench: Bench, settings: Settings, now: datetime, **options: Any) -> dict[str, int]:
    """What one call removed; a dry run before it says the same unless it is limited."""
    counted = retention.count_retainable(bench.connection, settings, now)
    removed = retention.retain(bench.connection, settings, now, **options)
    assert options or removed == counted
    return {what: number for what, number in removed.items() if number}


def test_each_state_of_a_run_is_kept_for_its_own_days(
    bench: Bench, settings: Settings, now: datetime
) -> None:
    days = {"finished": 2, "failed": 4}
    kept = [make_ended(bench, number - 0.01, end) for end, number in days.items()]
    gone = [make_ended(bench, number + 0.01, end) for end, number in days.items()]
    assert removed_by(bench, settings, now) == {
        "jobs of finished workflows": 3,
        "jobs of failed workflows": 3,
    }
    assert left(bench, "workflows", "id") == {graph.run for graph in kept}
    ids = {id for graph in kept for id in graph.ids.values()}
    assert left(bench, "jobs", "id") == ids
    assert left(bench, "steps", "job_id") == ids
    assert left(bench, "edges", "to_id") == {
        graph.ids[name] for graph in kept for name in ("b", "c")
    }
    assert not {id for graph in gone for id in graph.ids.values()} & ids


def test_a_canceled_run_goes_by_its_state(bench: Bench, settings: Settings, now: datetime) -> None:
    graph = make_ended(bench, 3.5)
    bench.connection.execute(
        "UPDATE opsjobs.workflows SET state = 'canceled', ended_by = 'canceled' WHERE id = %s",
        [graph.run],
    )
    assert removed_by(bench, settings, now - timedelta(days=1)) == {}
    assert removed_by(bench, settings, now) == {"jobs of canceled workflows": 3}


def test_nothing_of_an_open_run_goes(bench: Bench, settings: Settings, now: datetime) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    advance(bench.connection, graph.run, 1_000)
    bench.connection.execute(
        "INSERT INTO opsjobs.outputs (job_id, value, size_bytes, created_at) VALUES (%s, '1', 1, now())",
        [graph.ids["a"]],
    )
    assert removed_by(bench, settings, now + timedelta(days=1_000)) == {}
    graph.end("b")
    advance(bench.connection, graph.run, 1_000)
    assert removed_by(bench, settings, now + timedelta(days=1_000)) == {
        "outputs": 1,
        "jobs of finished workflows": 2,
    }


def test_an_ended_run_with_a_job_that_was_retried_alone_stays(
    bench: Bench, settings: Settings, now: datetime
) -> None:
    graph = make_ended(bench, 10)
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'available', ended_at = NULL, ended_by = NULL WHERE id = %s",
        [graph.ids["b"]],
    )
    assert removed_by(bench, settings, now) == {}


def test_an_output_outlives_a_long_wait(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, settings: Settings, now: datetime
) -> None:
    """Case 27: outputs are kept for a day here, and the wait takes ten."""
    got: list[Any] = []

    @opsjobs.task(record_output=True)
    def fetch() -> str:
        return "a picture"

    @opsjobs.task
    def show(picture: str) -> None:
        got.append(picture)

    flow = opsjobs.workflow("wait")
    fetched = flow.step("fetch", fetch)
    approved = flow.wait("approved", signal="approved", after=[fetched])
    flow.step("show", show, picture=fetched.result, after=[approved])
    flow.start()
    db.session.commit()
    perform_due()
    assert removed_by(bench, settings, now + timedelta(days=10)) == {}
    opsjobs.signal("approved")
    db.session.commit()
    perform_due()
    assert got == ["a picture"]
    removed = removed_by(bench, settings, now + timedelta(days=10))
    assert removed["jobs of finished workflows"] == 3
    assert all(bench.rows(f"SELECT 1 FROM opsjobs.{table}") == [] for table in TABLES)


def test_zero_days_remove_what_has_ended_and_its_callback_is_performed(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, settings: Settings
) -> None:
    told: list[int] = []

    @opsjobs.task
    def report(workflow_id: int) -> None:
        told.append(workflow_id)

    flow = opsjobs.workflow("brief", on_end=report)
    flow.step("only", opsjobs.task(_nothing))
    run = flow.start()
    db.session.commit()
    settings = replace(
        settings, keep_finished_days=0, keep_output_days=0, keep_signals_days=0, keep_failed_days=0
    )
    perform_due(limit=1)
    advance(bench.connection, run.id, 1_000)
    opsjobs.signal("early")
    db.session.commit()
    removed = removed_by(bench, settings, read_clock(bench.connection))
    assert removed == {"jobs of finished workflows": 1, "signals": 1}
    assert checks(bench.connection) == []
    perform_due()
    assert told == [run.id]
    assert removed_by(bench, settings, read_clock(bench.connection)) == {"finished jobs": 1}
    assert all(bench.rows(f"SELECT 1 FROM opsjobs.{table}") == [] for table in TABLES)


def _nothing() -> None: ...


def test_a_call_is_bounded_and_takes_the_oldest_runs(
    bench: Bench, settings: Settings, now: datetime
) -> None:
    graphs = [make_ended(bench, 10 + number) for number in range(4)]
    assert removed_by(bench, settings, now, limit=4) == {"jobs of finished workflows": 6}
    assert left(bench, "workflows", "id") == {graphs[0].run, graphs[1].run}
    assert removed_by(bench, settings, now, limit=1) == {"jobs of finished workflows": 3}
    assert left(bench, "workflows", "id") == {graphs[0].run}


def test_a_run_that_somebody_changes_is_skipped(
    make_bench: MakeBench, settings: Settings, now: datetime
) -> None:
    bench, other = make_bench(), make_bench()
    held, free = make_ended(bench, 10), make_ended(bench, 10)
    with other.connection.transaction():
        other.connection.execute(
            "SELECT FROM opsjobs.workflows WHERE id = %s FOR NO KEY UPDATE", [held.run]
        )
        assert retention.retain(bench.connection, settings, now)["jobs of finished workflows"] == 3
        assert left(bench, "workflows", "id") == {held.run}
    assert free.run not in left(bench, "workflows", "id")


def test_the_removal_is_counted_by_queue(bench: Bench, settings: Settings, now: datetime) -> None:
    make_ended(bench, 10)
    retention.retain(bench.connection, settings, now)
    assert bench.rows("SELECT queue, deleted FROM opsjobs.job_count_deltas WHERE deleted > 0") == [
        {"queue": "default", "deleted": 3}
    ]


def test_plain_jobs_go_beside_runs(bench: Bench, settings: Settings, now: datetime) -> None:
    graph = make_ended(bench, 1)
    bench.connection.execute(
        "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,"
        " ended_at, ended_by) VALUES ('call', 'default', 'default', 'finished', '{}', 1, now(), now(),"
        " now() - interval '3 days', 'returned')"
    )
    assert removed_by(bench, settings, now) == {"finished jobs": 1}
    assert left(bench, "jobs", "id") == set(graph.ids.values())


class TestSignals:
    @pytest.mark.parametrize("outcome", ["early", "ambiguous", "late", "unmatched"])
    @pytest.mark.parametrize("days", [4.9, 5.1, 10.1])
    def test_one_that_nobody_took_becomes_unmatched_before_it_goes(
        self, bench: Bench, settings: Settings, now: datetime, outcome: str, days: float
    ) -> None:
        send(bench.connection, outcome, days)
        removed = removed_by(bench, settings, now)
        goes_at = 5 if outcome == "late" else 10
        assert removed == ({"signals": 1} if days > goes_at else {})
        if not removed:
            becomes = "unmatched" if days > 5 else outcome
            assert left(bench, "signals", "outcome") == {becomes}

    def test_a_wait_does_not_take_an_unmatched_one(
        self, bench: Bench, settings: Settings, now: datetime
    ) -> None:
        send(bench.connection, "early", 6)
        retention.retain(bench.connection, settings, now)
        graph = Graph.make(bench.connection, "paid", [], waits={"paid": ("paid", "")})
        advance(bench.connection, graph.run, 1_000)
        assert graph.states() == {"paid": "deferred"}


def send(connection: Connection, outcome: str, days: float) -> None:
    connection.execute(
        "INSERT INTO opsjobs.signals (name, at, by, outcome)"
        " VALUES ('paid', now() - %s * interval '1 day', 'host', %s)",
        [days, outcome],
    )


_MANY = """
WITH run AS (
    INSERT INTO opsjobs.workflows (name, state, context, shape, steps, settled, finished, created_at,
        ended_at, ended_by)
    SELECT 'many', 'finished', '{}', '', 5, 5, 5, now(), now() - n * interval '1 min', 'finished'
    FROM generate_series(1, 8000) n RETURNING id, ended_at
), job AS (
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
        ended_by, workflow_id)
    SELECT 'call', 'default', 'default', 'finished', '{}', 1, now(), now(), ended_at, 'returned', id
    FROM run CROSS JOIN generate_series(1, 5) RETURNING id, workflow_id, ended_at
), step AS (
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at)
    SELECT id, workflow_id, id::text, 1, 'job', 0, 'finished', ended_at FROM job
), event AS (
    INSERT INTO opsjobs.workflow_end_events SELECT -workflow_id, ARRAY[id] FROM job
), edge AS (
    INSERT INTO opsjobs.edges SELECT id, id + 1, 'cancel' FROM job WHERE id % 5 > 0
), output AS (
    INSERT INTO opsjobs.outputs (job_id, size_bytes, created_at) SELECT id, 1, ended_at FROM job
), signal AS (
    INSERT INTO opsjobs.signals (name, key, at, by, outcome)
    SELECT 'paid', id::text, ended_at, 'host', 'late' FROM job
)
INSERT INTO opsjobs.callbacks SELECT 'workflow', id, 1, 'end', id FROM run
"""


class TestPlans:
    @pytest.fixture
    def crowd(self, bench: Bench) -> Connection:
        bench.connection.execute(_MANY)
        for table in (*TABLES, "signals", "workflow_end_events"):
            bench.connection.execute(f"ANALYZE opsjobs.{table}")
        return bench.connection

    @pytest.mark.slow
    def test_it_reads_only_what_it_removes(self, crowd: Connection, now: datetime) -> None:
        before = now - timedelta(minutes=7_950)
        runs = {"state": "finished", "before": before, "limit": 100}
        signals = {"before": before, "unmatched_before": before, "limit": 100}
        expected = {
            "retain_workflows": (runs, {"workflows_to_retain", "jobs_of_run", "edges_pkey"}),
            "retain_outputs": (
                {"before": before, "limit": 100},
                {"outputs_to_retain", "jobs_pkey"},
            ),
            "retain_signals": (signals, {"signals_to_retain"}),
        }
        for statement, (parameters, indexes) in expected.items():
            nodes = explain(crowd, statement, parameters)
            scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
            assert not scanned, (statement, scanned)
            assert {node["Index Name"] for node in nodes if "Index Name" in node} >= indexes
            rows = [
                node["Actual Rows"] * node["Actual Loops"]
                for node in nodes
                if "Scan" in node["Node Type"]
            ]
            assert max(rows) <= 500, (statement, rows)
