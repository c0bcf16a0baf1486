from __future__ import annotations

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.host import Host


def read(host: Host, statement: str, **values: Any) -> list[dict[str, Any]]:
    """The committed rows of a statement, in a session of their own."""
    engine = create_engine(host.engine.url)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(text(statement), values).mappings()]
    engine.dispose()
    return rows


def steps_of(host: Host, run: int) -> dict[str, dict[str, Any]]:
    """The steps of a run with their jobs, by name, in the order of their ids."""
    statement = """SELECT s.*, j.* FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE s.workflow_id = :run ORDER BY j.id"""
    return {row["name"]: row for row in read(host, statement, run=run)}


def edges_of(host: Host) -> set[tuple[str, str, str]]:
    statement = """SELECT f.name AS source, t.name AS target, e.on_failure FROM opsjobs.edges e
    JOIN opsjobs.steps f ON f.job_id = e.from_id JOIN opsjobs.steps t ON t.job_id = e.to_id"""
    return {(row["source"], row["target"], row["on_failure"]) for row in read(host, statement)}


@pytest.fixture
def fetch(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(record_output=True, queue="fetch")
    def fetch(account_id: int) -> dict[str, Any]:
        return {"id": account_id, "pictures": []}

    return fetch


@pytest.fixture
def bill(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(record_output=True)
    def bill(customer: int, note: str = "") -> None: ...

    return bill


def test_a_run_is_written_with_its_jobs_steps_and_edges(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.workflow("sync", context={"account_id": 42})
    fetched = flow.step("fetch", fetch, account_id=42)
    billing = flow.step("billing", bill.options(queue="billing"), customer=fetched.result["id"])
    flow.wait("paid", signal="payment", key="order-42", timeout=60, after=[billing])
    flow.step(
        "tidy", bill, customer=1, note="back\\slash\n", after=["billing"], on_failure="continue"
    )
    run = flow.start()
    assert read(host, "SELECT FROM opsjobs.workflows") == []
    db.session.commit()
    assert (run.steps, run.conflict) == (4, False)
    steps = steps_of(host, run.id)
    assert [
        (s["name"], s["state"], s["pending"], s["queue"], s["kind"]) for s in steps.values()
    ] == [
        ("fetch", "available", 0, "fetch", "job"),
        ("billing", "deferred", 1, "billing", "job"),
        ("paid", "deferred", 1, "default", "wait"),
        ("tidy", "deferred", 1, "default", "job"),
    ]
    assert steps["fetch"]["released_at"] == steps["fetch"]["created_at"] == steps["fetch"]["due_at"]
    assert steps["billing"]["released_at"] is None
    assert steps["billing"]["takes"] == {"customer": {"step": steps["fetch"]["id"], "path": ["id"]}}
    assert (steps["tidy"]["args"]["note"], steps["billing"]["args"]) == ("back\\slash\n", {})
    assert (steps["paid"]["signals"], steps["paid"]["key"], steps["paid"]["task"]) == (
        ["payment"],
        "order-42",
        "opsjobs.wait",
    )
    assert edges_of(host) == {
        ("fetch", "billing", "cancel"),
        ("billing", "paid", "cancel"),
        ("billing", "tidy", "continue"),
    }
    (row,) = read(host, "SELECT * FROM opsjobs.workflows")
    assert (row["name"], row["state"], row["context"], row["steps"], row["settled"]) == (
        "sync",
        "running",
        {"account_id": 42},
        4,
        0,
    )
