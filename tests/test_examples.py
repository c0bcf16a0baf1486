"""Every public function has an example in its docstring, and the example runs against a real database."""

from __future__ import annotations

import doctest
import inspect
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

import flask_opsjobs
from flask_opsjobs import Batch, Limit, Map, OpsJobs, Step, Task, Wait, Workflow, testing
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.current import CurrentJob
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.finding import DetectorPass, Finding
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.testing import plugin
from tests.support.policies import AllowAll, ShowAll

ERRORS = {
    name
    for name in flask_opsjobs.__all__
    if isinstance(found := getattr(flask_opsjobs, name), type)
    and issubclass(found, flask_opsjobs.OpsJobsError)
}
# Plain results, which the examples of the functions that return them show.
VALUES = {"Enqueued", "EnqueuedMany", "Started"}
FIXTURES = (
    *("opsjobs_perform_due", "opsjobs_enqueued", "opsjobs_jobs"),
    *("opsjobs_clock", "opsjobs_as", "opsjobs_inline"),
)


def _methods(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class."""
    return {
        f"{kind.__name__}.{name}": found
        for name, found in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(found) or isinstance(found, property))
    }


PUBLIC: dict[str, Any] = {
    **{
        name: getattr(flask_opsjobs, name)
        for name in flask_opsjobs.__all__
        if name not in ERRORS | VALUES
    },
    **_methods(OpsJobs),
    **{
        name: found
        for kind in (Batch, Workflow, Step, Wait, Map)
        for name, found in _methods(kind).items()
    },
    **{f"Task.{name}": getattr(Task, name) for name in ("enqueue", "enqueue_many", "options", "s")},
    "CurrentJob.progress": CurrentJob.progress,
    "CurrentJob.workflow": CurrentJob.workflow,
    **_methods(Operator),
    **_methods(BulkOperator),
    **{
        name: getattr(testing, name)
        for name in (
            *("perform_due", "jobs", "enqueued", "assert_enqueued", "refute_enqueued", "perform"),
            *("assert_no_leaks", "pass_time", "create_schema", "drop_schema"),
        )
    },
    **{name: getattr(plugin, name) for name in FIXTURES},
}


@pytest.fixture
def names(
    app: Flask, db: SQLAlchemy, opsjobs: OpsJobs, host: Host, database_url: str
) -> dict[str, Any]:
    """The names that examples use: an app with OpsJobs inside its context, a task, a limiter."""

    @opsjobs.task(queue="mail", record_output=True, enqueue_from_page=True)
    def send_invoice(invoice_id: int) -> str:
        return f"sent {invoice_id}"

    @opsjobs.task(limit=Limit("crm", rate=10, per=60))
    def sync_contacts() -> None: ...

    declare_limiters(host, "test")
    facts = {"loop": "stage", "failed": 5, "process": "web-1", "error": "no"}
    with host.spare.one() as connection, connection.transaction():
        found = DetectorPass([Finding("loop/stage", facts=facts)])
        (opened,) = incidents.apply_pass(
            connection, "loop_failing", found, read_clock(connection)
        ).opened
    with host.spare.one() as connection, connection.transaction():
        (failure_id,) = connection.execute(
            """INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at,
                   number, first_at, last_at)
               VALUES (decode(repeat('01', 16), 'hex'), 't', 'KeyError', 1, 1, now(), 1, now(), now())
               RETURNING id"""
        ).fetchone() or (0,)
    public = {name: getattr(flask_opsjobs, name) for name in flask_opsjobs.__all__}
    return public | {
        "app": app,
        "db": db,
        "opsjobs": opsjobs,
        "operator": opsjobs.operator,
        "why": {"actor": "anna", "reason": "the vendor is away"},
        "send_invoice": send_invoice,
        "incident": opened.id,
        "failure": failure_id,
        "perform_due": testing.perform_due,
        "testing": testing,
        "timedelta": timedelta,
        "Flask": Flask,
        "SQLAlchemy": SQLAlchemy,
        "HostAccess": AllowAll,
        "HostDisplay": ShowAll,
        "DATABASE_URL": database_url,
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_runs(name: str, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if name in FIXTURES:
        names[name] = request.getfixturevalue(name)
    text = inspect.getdoc(PUBLIC[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, names, name, inspect.getfile(OpsJobs), 0)
    assert example.examples, f"{name} has no example in its docstring: add one that begins with >>>"
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert report == [], "".join(report)
