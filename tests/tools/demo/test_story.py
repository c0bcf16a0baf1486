"""The history of the demo: two days as the library's own statements wrote them, with nothing left to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.workflows.checks import checks
from tests.host.conftest import sign_in
from tools.demo.servers import running_servers

HOUR = timedelta(hours=1)


@pytest.fixture
def database_url(lived: Path) -> Iterator[str]:
    """The database of a demo."""
    with running_servers(lived) as servers:
        yield servers.env["FLASK_SQLALCHEMY_DATABASE_URI"]


@pytest.mark.slow(40)
def test_a_day_is_lived_once_and_ends_well(app: Flask, db: Any, visitor: FlaskClient) -> None:
    lived = datetime.now(UTC)

    def rows(statement: str) -> list[Any]:
        db.session.rollback()
        return list(db.session.execute(text(statement)).all())

    ((first, last, count),) = rows(
        "SELECT min(created_at), max(ended_at), count(*) FROM opsjobs.jobs"
    )
    assert lived - 52 * HOUR < first < lived - 48 * HOUR
    assert lived - HOUR < last < lived + HOUR / 6
    assert count > 300
    # Every time of a job is one of the past, and in its order.
    wrong = "created_at > started_at OR started_at > ended_at OR ended_at > clock_timestamp()"
    assert rows(f"SELECT id FROM opsjobs.jobs WHERE {wrong}") == []
    states = {state for (state,) in rows("SELECT DISTINCT state FROM opsjobs.jobs")}
    # Steps of orders that nobody has paid yet are deferred.
    assert states <= {"finished", "canceled", "scheduled", "deferred"}
    runs = rows("SELECT state, count(*) FROM opsjobs.workflows GROUP BY state")
    assert {state for state, _ in runs} == {"running", "finished"}
    assert rows("SELECT DISTINCT outcome FROM opsjobs.signals") == [("taken",)]
    late = "SELECT id FROM opsjobs.workflows WHERE ended_at > clock_timestamp() OR ended_at < started_at"
    assert rows(late) == []
    waiting = "SELECT name FROM opsjobs.steps WHERE opened_at IS NOT NULL AND settled IS NULL"
    assert {name for (name,) in rows(waiting)} == {"paid"}
    connection = connect_apart(app.extensions["opsjobs"].engine)
    assert checks(connection) == []
    connection.close()
    # What the charts add up to is what ended while somebody counted.
    counted = """
        SELECT (SELECT sum(finished + failed + canceled) FROM opsjobs.rollups WHERE queue = ''),
               (SELECT count(*) FROM opsjobs.jobs, opsjobs.rollup_position h
                WHERE ended_at >= h.counted_from AND ended_at < h.counted_until)
    """
    ((summed, ended),) = rows(counted)
    # A retried job has ended twice.
    assert ended <= summed < ended + 50
    assert ended > 200

    missed = rows("SELECT entry, why FROM opsjobs.cron_slots WHERE result = 'missed'")
    assert "nightly_sync" in {entry for entry, _ in missed}
    lately = "result = 'missed' AND until_at > clock_timestamp() - interval '1 day'"
    assert rows(f"SELECT entry FROM opsjobs.cron_slots WHERE {lately}") == [], "it begins healthy"
    decided = rows(
        "SELECT actor, action, outcome, reason FROM opsjobs.audit_events ORDER BY sequence"
    )
    assert ("admin", "queue.pause", "done") in [row[:3] for row in decided]
    assert ("ops-demo", "operation.start", "done") in [row[:3] for row in decided]
    assert ("ops-demo", "task.enqueue", "done") in [row[:3] for row in decided]
    operations = rows("SELECT action, state, code, done > 0 FROM opsjobs.operations ORDER BY id")
    assert operations == [
        ("job.retry", "stopped", "same_failure", False),
        ("job.retry", "finished", None, False),
        ("job.retry", "finished", None, False),
        ("job.delete", "paused", "operator", True),
    ]
    assert ("ops-demo", "workflow.skip", "done") in [row[:3] for row in decided]
    repaired = rows("SELECT state, end_no FROM opsjobs.workflows WHERE end_no > 1")
    assert repaired == [("finished", 2)]
    assert rows("SELECT 1 FROM pg_namespace WHERE nspname = 'demo_clock'") == []

    # Two deploys, and a bug that came with the first and went with the second.
    assert [version for (version,) in rows("SELECT version FROM opsjobs.deploys ORDER BY id")] == [
        "v2.41",
        "v2.42",
    ]
    mended = "SELECT state, decided_by FROM opsjobs.failures WHERE type = 'UnknownFormat'"
    assert rows(mended) == [("resolved", "ops-demo")]
    undecided = "SELECT title FROM opsjobs.failures WHERE state = 'open' AND jobs > 0"
    assert rows(undecided) == []
    # Nothing needs a person: what was wrong is over, and what is wrong is acknowledged.
    incidents = rows("SELECT class, state FROM opsjobs.incidents ORDER BY id")
    assert {state for _, state in incidents} == {"acknowledged", "resolved"}, incidents
    assert ("batch_overdue", "acknowledged") in incidents
    assert ("cron_missed", "resolved") in incidents

    sign_in(visitor, "admin")
    queue = visitor.get("/ops/jobs/queues/newsletter").text
    assert "Prices are being changed" in queue
    assert "the cron loop did not run" in visitor.get("/ops/jobs/cron/nightly_sync").text

    # The shop is on the path only while its fixture says so.
    from tools.demo import story

    story.write_history(app)
    assert rows("SELECT count(*) FROM opsjobs.jobs") == [(count,)]
    verified = app.test_cli_runner().invoke(args=["opsjobs", "audit", "verify"])
    assert verified.exit_code == 0, verified.output


def test_what_needs_a_worker_happens_while_one_runs_at_any_hour(shop: ModuleType) -> None:
    """Before the shop opens, workers sleep for a while: from then on they run, whenever the demo begins."""
    from tools.demo import story

    earlier = {act.__name__ for before, act in story.to_come.items() if before >= story.OPEN}
    assert earlier == {"bug_is_deployed", "price_list_is_begun"}
