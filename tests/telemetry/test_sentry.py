"""Failed jobs reach Sentry: once, from every kind of worker, without values, and at no other job's cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from sqlalchemy import text

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs.perform.outcomes import Cancel, Discard
from flask_opsjobs.testing import perform_due
from tests.engine.site import enqueue, rows, state_of
from tests.support.host import fail, note
from tests.support.processes import Children
from tests.support.trackers import KeptTransport, read_lines
from tests.support.waiting import wait_until

CANARY = "canary-7f3a"


def start_worker(children: Children, kind: str, redis_url: str, **config: Any) -> None:
    """Start a worker of a kind."""
    if kind == "kept child":
        children.flask("opsjobs", "worker", **config)
    elif kind == "process per job":
        children.flask("opsjobs", "worker", "--jobs-per-process", "1", **config)
    else:
        env = {f"TEST_CONFIG_{key}": json.dumps(value) for key, value in config.items()}
        simple = ["--worker-class", "rq.SimpleWorker"] if kind == "rq simple" else []
        words = ["worker", "--url", redis_url, *simple, "default"]
        children.python("-m", "rq.cli", *words, env={**env, "FLASK_APP": "tests.support.host"})


@pytest.mark.parametrize("kind", ["kept child", "process per job", "rq worker", "rq simple"])
def test_a_failed_job_is_reported_once(
    site: Flask, children: Children, tmp_path: Path, redis_url: str, kind: str
) -> None:
    """With all integrations of Sentry, that for RQ too, and though nothing is written before a flush."""
    events = tmp_path / "events"
    jobs = [enqueue(fail.options(max_attempts=1), message=f"broke {n}") for n in range(2)]
    start_worker(children, kind, redis_url, SENTRY_TO=str(events))
    wait_until(lambda: [state_of(job) for job in jobs] == ["failed", "failed"], 30)
    wait_until(lambda: len(read_lines(events)) >= 2, 10)
    found = read_lines(events)
    said = [event["exception"]["values"][-1]["value"] for event in found]
    assert sorted(said) == ["broke 0", "broke 1"]
    for event in found:
        assert event["tags"]["opsjobs.task"] == event["transaction"] == "fail"
        assert event["tags"]["opsjobs.queue"] == "default"
        assert str(event["tags"]["opsjobs.attempt"]) == "1"
        assert event["contexts"]["opsjobs"]["job_id"] in jobs
        frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
        assert [frame["function"] for frame in frames] == ["fail"]


@pytest.mark.parametrize("kind", ["kept child", "process per job"])
def test_a_transport_that_hangs_holds_up_no_job(
    site: Flask, children: Children, tmp_path: Path, redis_url: str, kind: str
) -> None:
    failing = [enqueue(fail.options(max_attempts=1)) for _ in range(2)]
    last = enqueue(note, path=str(tmp_path / "lines"), line="ran")
    start_worker(children, kind, redis_url, SENTRY_TO=str(tmp_path / "events"), SENTRY_HANGS=True)
    ended = ["failed", "failed", "finished"]
    wait_until(lambda: [state_of(job) for job in (*failing, last)] == ended, 30)
    ((longest,),) = rows(
        """SELECT max(extract(epoch FROM started_at - before)) FROM (
            SELECT started_at, lag(ended_at) OVER (ORDER BY started_at) AS before FROM opsjobs.attempts
        ) AS gaps"""
    )
    assert longest < 3


# --- what is reported


@pytest.fixture
def sentry() -> Iterator[Any]:
    """Initialises Sentry in this process, with a transport that keeps events: `sentry(option=…)`."""

    def start(**options: Any) -> list[Any]:
        transport = KeptTransport()
        sentry_sdk.init(
            "http://key@localhost/1", transport=transport, default_integrations=False, **options
        )
        return transport.events

    yield start
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize(("setting", "attempts"), [("final", [2]), ("every", [1, 2]), ("off", [])])
def test_the_setting_says_which_attempts_are_reported(
    make_app: Any, sentry: Any, setting: str, attempts: list[int]
) -> None:
    opsjobs = OpsJobs()
    events = sentry()

    @opsjobs.task(max_attempts=2, backoff=0)
    def broken() -> None:
        raise RuntimeError("broke")

    app = make_app(opsjobs=opsjobs, OPSJOBS_SENTRY=setting)
    with app.app_context():
        broken.enqueue()
        app.extensions["sqlalchemy"].session.commit()
        perform_due()
    assert [event["tags"]["opsjobs.attempt"] for event in events] == attempts


def test_only_failures_are_reported(opsjobs: OpsJobs, db: Any, sentry: Any) -> None:
    events = sentry()

    @opsjobs.task(max_attempts=1)
    def end(how: str) -> None:
        if how == "cancel":
            raise Cancel("not needed")
        if how == "discard":
            raise Discard("no address")

    for how in ("return", "cancel", "discard"):
        end.enqueue(how)
    db.session.commit()
    perform_due()
    assert [event["exception"]["values"][-1]["type"] for event in events] == ["Discard"]


def test_what_the_host_reports_in_a_job_names_the_job_and_is_not_reported_again(
    opsjobs: OpsJobs, db: Any, sentry: Any
) -> None:
    from sentry_sdk.integrations.dedupe import DedupeIntegration

    events = sentry(integrations=[DedupeIntegration()])

    @opsjobs.task(max_attempts=1)
    def report_itself() -> None:
        sentry_sdk.set_tag("own", "yes")
        try:
            raise RuntimeError("broke")
        except RuntimeError as error:
            sentry_sdk.capture_exception(error)
            raise

    @opsjobs.task(max_attempts=1)
    def say() -> None:
        sentry_sdk.capture_message("hello")

    report_itself.enqueue()
    say.enqueue()
    db.session.commit()
    perform_due()
    assert [event["tags"]["opsjobs.task"] for event in events] == ["report_itself", "say"]
    assert ["own" in event["tags"] for event in events] == [True, False]


@pytest.mark.parametrize("asks", [False, True])
def test_values_are_reported_only_as_local_variables(
    opsjobs: OpsJobs, db: Any, sentry: Any, asks: bool
) -> None:
    events = sentry(include_local_variables=asks)

    @opsjobs.task(max_attempts=1, redact=["token"])
    def pay(card: str, token: str = "") -> None:
        try:
            db.session.execute(text("SELECT 1 / 0, :card"), {"card": card})
        except Exception as error:
            raise RuntimeError("not paid") from error

    pay.enqueue(CANARY, token=f"token {CANARY}")
    db.session.commit()
    perform_due()
    (event,) = events
    assert len(event["exception"]["values"]) == 3
    # The crawl finds it where it is.
    assert (CANARY in json.dumps(event, default=repr)) is asks
    assert f"token {CANARY}" not in json.dumps(event, default=repr)
