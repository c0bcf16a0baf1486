"""Retention of batches: members go by the end of their batch, in parts, and the batch with the last one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs import transitions as jobs
from flask_opsjobs.lifeline import retention
from flask_opsjobs.settings import Settings
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import fold_all
from tests.conftest import MakeBench
from tests.support.engine import Bench
from tests.support.plans import explain


@pytest.fixture
def settings(bench: Bench) -> Settings:
    return replace(
        bench.host.settings, keep_finished_days=2, keep_canceled_days=3, keep_failed_days=4
    )


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


class Maker:
    """Makes batches that have ended."""

    def __init__(self, opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench) -> None:
        self.opsjobs = opsjobs
        self.db = db
        self.bench = bench
        self.task = opsjobs.task(max_attempts=1)(_import_row)
        self.report = opsjobs.task(_report)

    def __call__(self, numbers: list[int], days: float) -> int:
        """A batch that ended so many days ago, of which negative numbers failed."""
        with self.opsjobs.batch("import", on_end=self.report) as batch:
            batch.enqueue_many(self.task, ({"number": number} for number in numbers))
        self.db.session.commit()
        perform_due()
        row = self.bench.row(
            "UPDATE opsjobs.batches SET ended_at = ended_at - %s * interval '1 day'"
            " WHERE id = (SELECT max(id) FROM opsjobs.batches) RETURNING id, state",
            days,
        )
        # A callback is a job of its own, and goes by itself.
        self.bench.connection.execute("DELETE FROM opsjobs.jobs WHERE batch_id IS NULL")
        assert row["state"] == ("failed" if min(numbers, default=0) < 0 else "finished")
        found: int = row["id"]
        return found


def _import_row(number: int) -> None:
    if number < 0:
        raise ValueError("a negative number")


def _report(batch_id: int) -> None: ...


@pytest.fixture
def make(opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench) -> Maker:
    return Maker(opsjobs, db, bench)


def batches(bench: Bench) -> set[int]:
    return {row["id"] for row in bench.rows("SELECT id FROM opsjobs.batches")}


def removed_by(bench: Bench, settings: Settings, now: datetime, **options: Any) -> dict[str, int]:
    """What one call removed; a dry run before it says the same unless it is limited."""
    counted = retention.count_retainable(bench.connection, settings, now)
    removed = retention.retain(bench.connection, settings, now, **options)
    assert options or removed == counted
    return {what: number for what, number in removed.items() if number}


def test_members_go_with_their_batch_by_its_state(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    """A finished member of a failed batch stays as long as the batch."""
    make([1, 2], 2.5)
    failed = make([1, -1], 3.5)
    assert removed_by(bench, settings, now) == {"members of finished batches": 2}
    assert batches(bench) == {failed}
    assert bench.row("SELECT count(*) FROM opsjobs.jobs") == {"count": 2}
    assert check_batches(bench.connection) == []
    assert removed_by(bench, settings, now + timedelta(days=1)) == {"members of failed batches": 2}
    for table in ("jobs", "batches", "batch_ends", "batch_end_events", "callbacks"):
        assert bench.rows(f"SELECT 1 FROM opsjobs.{table}") == [], table


def test_nothing_of_an_open_batch_goes(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    with make.opsjobs.batch("import") as batch:
        batch.enqueue(make.task, number=1)
        make.db.session.commit()
        perform_due()
        bench.connection.execute("UPDATE opsjobs.jobs SET ended_at = now() - interval '50 days'")
        assert removed_by(bench, settings, now) == {}
    make.db.session.commit()


def test_a_batch_with_a_member_that_is_retried_stays(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    make([1, -1], 10)
    (row,) = bench.rows("SELECT id FROM opsjobs.jobs WHERE state = 'failed'")
    with bench.connection.transaction():
        jobs.retry(bench.connection, [row["id"]], now)
    assert removed_by(bench, settings, now) == {}


def test_zero_days_remove_what_has_ended_and_its_callback_is_performed(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, settings: Settings
) -> None:
    told: list[int] = []

    @opsjobs.task
    def report(batch_id: int) -> None:
        told.append(batch_id)

    settings = replace(settings, keep_finished_days=0, keep_failed_days=0, keep_output_days=0)
    with opsjobs.batch("import", on_end=report) as batch:
        batch.enqueue(opsjobs.task(max_attempts=1)(_import_row), number=-1)
    with opsjobs.batch("open").open() as left:
        left.enqueue(opsjobs.task(_nothing))
        db.session.commit()
        perform_due(limit=2)
        fold_all(bench.connection)
        removed = removed_by(bench, settings, read_clock(bench.connection))
        assert removed == {"members of failed batches": 1}
        assert batches(bench) == {left.id}
        perform_due()
        assert told == [batch.id]
        assert removed_by(bench, settings, read_clock(bench.connection)) == {"finished jobs": 1}
        assert check_batches(bench.connection) == []


def _nothing() -> None: ...


def test_an_empty_batch_goes_too(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    make([], 10)
    assert removed_by(bench, settings, now) == {}
    assert batches(bench) == set()


def test_a_large_batch_goes_in_parts_and_the_oldest_first(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    new, old = make(list(range(4)), 10), make(list(range(5)), 20)
    limit = {"limit": 3}
    assert removed_by(bench, settings, now, **limit) == {"members of finished batches": 3}
    assert batches(bench) == {new, old}
    assert check_batches(bench.connection) == []
    assert removed_by(bench, settings, now, **limit) == {"members of finished batches": 3}
    assert batches(bench) == {new}
    assert removed_by(bench, settings, now, **limit) == {"members of finished batches": 3}
    assert batches(bench) == set()


def test_a_member_that_is_retried_between_two_parts_saves_the_rest(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    batch = make([-1, -2, -3], 10)
    retention.retain(bench.connection, settings, now, limit=1)
    (row, _) = bench.rows("SELECT id FROM opsjobs.jobs ORDER BY id")
    with bench.connection.transaction():
        jobs.retry(bench.connection, [row["id"]], now)
    assert removed_by(bench, settings, now) == {}
    perform_due()
    found = bench.row("SELECT * FROM opsjobs.batches")
    assert (found["id"], found["state"], found["end_no"], found["lost"]) == (batch, "failed", 2, 0)


def test_a_batch_that_somebody_changes_is_skipped(
    make: Maker, make_bench: MakeBench, bench: Bench, settings: Settings, now: datetime
) -> None:
    held, _ = make([1], 10), make([1], 10)
    other = make_bench()
    with other.connection.transaction():
        other.connection.execute(
            "SELECT FROM opsjobs.batches WHERE id = %s FOR NO KEY UPDATE", [held]
        )
        removed = retention.retain(bench.connection, settings, now)
    assert removed["members of finished batches"] == 1
    assert batches(bench) == {held}


def test_the_removal_is_counted_by_queue(
    make: Maker, bench: Bench, settings: Settings, now: datetime
) -> None:
    make([1, 2, 3], 10)
    retention.retain(bench.connection, settings, now)
    assert bench.rows("SELECT queue, deleted FROM opsjobs.job_count_deltas WHERE deleted > 0") == [
        {"queue": "default", "deleted": 3}
    ]


def test_it_reads_only_what_it_removes(bench: Bench, now: datetime) -> None:
    """Among 1,000 small batches, and one large one that is old."""
    connection = bench.connection
    connection.execute(
        """
        WITH batch AS (
            INSERT INTO opsjobs.batches (name, state, created_at, closed_at, ended_at)
            SELECT 'many', 'finished', now(), now(), now() - n * interval '1 min'
            FROM generate_series(1, 1000) n RETURNING id, ended_at
        )
        INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
            ended_at, ended_by, batch_id)
        SELECT 'call', 'default', 'default', 'finished', '{}', 1, now(), now(), ended_at, 'returned', id
        FROM batch CROSS JOIN LATERAL generate_series(
            1, CASE WHEN id = (SELECT max(id) FROM batch) THEN 10000 ELSE 20 END)
        """
    )
    connection.execute(
        "INSERT INTO opsjobs.callbacks SELECT 'batch', id, 1, 'end', id FROM opsjobs.batches;"
    )
    connection.execute(
        "INSERT INTO opsjobs.batch_end_events SELECT -n, 'finished', '', 1 FROM generate_series(1, 5000) n"
    )
    for table in ("batches", "jobs", "callbacks", "batch_end_events"):
        connection.execute(f"ANALYZE opsjobs.{table}")
    before = now - timedelta(minutes=995)
    nodes = explain(
        connection, "retain_batches", {"state": "finished", "before": before, "limit": 200}
    )
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert "jobs" not in scanned, scanned
    assert {node["Index Name"] for node in nodes if "Index Name" in node} >= {
        "jobs_of_batch",
        "jobs_open_of_batch",
        "jobs_pkey",
    }
    rows = [
        node["Actual Rows"] * node["Actual Loops"] for node in nodes if "Scan" in node["Node Type"]
    ]
    assert max(rows) <= 1_000, rows
