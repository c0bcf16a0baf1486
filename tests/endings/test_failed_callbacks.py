"""A callback that fails: the page of its run or batch says so, and a retry tells the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.testing import perform_due
from tests.support.engine import Bench
from tests.web.every import soup

WHY: dict[str, Any] = {"actor": "anna", "reason": "the database of the shop answers again"}
Start = Callable[[OpsJobs, Task, Task], str]


def run(opsjobs: OpsJobs, step: Task, on_end: Task) -> str:
    """Start a run; returns the path of its page."""
    flow = opsjobs.workflow("order", on_end=on_end)
    flow.step("pay", step)
    return f"/ops/jobs/workflows/{flow.start().id}"


def batch(opsjobs: OpsJobs, step: Task, on_end: Task) -> str:
    """Open and close a batch; returns the path of its page."""
    with opsjobs.batch("order", on_end=on_end) as batch:
        batch.enqueue(step)
    return f"/ops/jobs/batches/{batch.id}"


@pytest.mark.parametrize("start", [run, batch])
def test_it_is_shown_where_it_belongs_and_repaired_there(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, client: FlaskClient, start: Start
) -> None:
    told: list[str] = []
    is_away = True

    @opsjobs.task(max_attempts=1)
    def pay() -> None:
        pass

    @opsjobs.task(max_attempts=1)
    def report(state: str, workflow_id: int = 0, batch_id: int = 0) -> None:
        if is_away:
            raise ConnectionError("the shop does not answer")
        told.append(state)

    path = start(opsjobs, pay, report)
    db.session.commit()
    perform_due()
    page = soup(client.get(path).text)
    (said,) = page.select("#live .say[data-is=failed]")
    words = " ".join(said.get_text(" ").split())
    assert "The callback of end 1 failed" in words
    assert "Retry its job." in words
    job = bench.row("SELECT job_id FROM opsjobs.callbacks")["job_id"]
    assert said.a["href"] == f"/ops/jobs/jobs/{job}"
    assert f"{said.a['href']}/retry" in client.get(said.a["href"]).text
    assert told == []
    is_away = False
    assert opsjobs.operator.retry(job, **WHY).is_done
    perform_due()
    assert told == ["finished"]
    assert soup(client.get(path).text).select("#live .say[data-is=failed]") == []
