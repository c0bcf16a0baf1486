"""Failed jobs reach Sentry: once, from every kind of worker, without values, and at no other job's cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from sqlalchemy import text

from flask_opsjobs import OpsJobs, endings, signals
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.jobs.perform.outcomes import Cancel, Discard, Outcome
from flask_opsjobs.testing import perform_due
from tests.engine.site import enqueue, rows, state_of
from tests.support.engine import Bench
from tests.support.host import die, fail, note
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


@pytest.mark.lane
@pytest.mark.parametrize("kind", ["kept child", "process per job", "rq worker", "rq simple"])
def test_a_failed_job_is_reported_once(
    site: Flask, children: Children, tmp_path: Path, redis_url: str, kind: str
) -> None:
    """With all integrations of Sentry, that for RQ too, and though nothing is written before a flush.

    With what the host has set in the process, and nothing that another job has set.
    """
    events = tmp_path / "events"
    jobs = [enqueue(fail.options(max_attempts=1), message=f"broke {n}") for n in range(2)]
    start_worker(children, kind, redis_url, SENTRY_TO=str(events))
    wait_until(lambda: [state_of(job) for job in jobs] == ["failed", "failed"], 30)
    wait_until(lambda: len(read_lines(events)) >= 2, 10)
    found = read_lines(events)
    said = [event["exception"]["values"][-1]["value"] for event in found]
    assert sorted(said) == ["broke 0", "broke 1"]
    for event, message in zip(found, said, strict=True):
        assert event["tags"]["service"] == "shop"
        assert event["extra"]["signed"] == "by the host"
        assert [name for name in event["tags"] if name.startswith("said")] == [f"said {message}"]
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


@pytest.mark.parametrize("message", [None, "broke"])
def test_a_process_of_one_job_flushes_only_what_there_is(
    site: Flask, children: Children, tmp_path: Path, message: str | None
) -> None:
    """A flush needs a thread, which is a good part of what a process for a short job costs."""
    events = tmp_path / "events"
    if message is None:
        job, ended = enqueue(note, path=str(tmp_path / "lines"), line="ran"), "finished"
    else:
        job, ended = enqueue(fail.options(max_attempts=1), message=message), "failed"
    worker = children.flask(
        "opsjobs", "worker", "--jobs-per-process", "1", "--burst", SENTRY_TO=str(events)
    )
    assert worker.wait(30) == 0
    assert state_of(job) == ended
    # Sentry flushes where the worker itself ends.
    flushed = {path.suffix for path in tmp_path.glob("events.*")} - {f".{worker.pid}"}
    assert len(flushed) == (0 if message is None else 1)


def test_a_job_whose_process_dies_is_reported_once(
    site: Flask, children: Children, tmp_path: Path
) -> None:
    """By the worker, since no exception was raised; not after an attempt that is not the last."""
    events = tmp_path / "events"
    died = enqueue(die.options(max_attempts=1))
    jobs = [died, enqueue(die, attempts=1)]
    worker = children.flask("opsjobs", "worker", SENTRY_TO=str(events))
    children.flask("opsjobs", "run")
    wait_until(lambda: [state_of(job) for job in jobs] == ["failed", "finished"], 30)
    assert worker.terminate() == 0
    # Sentry's integration for logging reports errors in our log too.
    (event,) = [event for event in read_lines(events) if "opsjobs.task" in event.get("tags", {})]
    assert event["message"] == "die failed: its process died"
    assert event["tags"] == {
        "service": "shop",
        "opsjobs.task": "die",
        "opsjobs.queue": "default",
        "opsjobs.attempt": 1,
        "opsjobs.outcome": "died",
        "opsjobs.ended_by": "exhausted",
    }
    assert event["contexts"]["opsjobs"]["job_id"] == died


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
    with sentry_sdk.isolation_scope():
        sentry_sdk.set_tag("service", "shop")
        perform_due()
    assert [event["tags"]["service"] for event in events] == ["shop", "shop"]
    assert [event["tags"]["opsjobs.task"] for event in events] == ["report_itself", "say"]
    assert ["own" in event["tags"] for event in events] == [True, False]


_NOT_RUN = Outcome("not_run", "no such task", reason="no such task", ended_by="unknown_task")
_KILLED = Outcome("timed_out", "ran longer than 1 s", cause_of_death="time-out", death="timed_out")


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (_KILLED, "its process was killed at its time limit"),
        (_NOT_RUN, "for ten minutes workers did not have its task"),
        ("rescue", "its worker was lost"),
        ("expire", "the deadline passed before it started"),
        (Outcome("raised", "ValueError"), None),
        ("discard", None),
    ],
)
def test_a_job_that_fails_without_an_exception_is_reported(
    bench: Bench, record_job: Any, sentry: Any, end: Outcome | str, says: str | None
) -> None:
    """An exception was reported by the process that saw it, and what somebody discards needs no report."""
    events = sentry()
    job = record_job(max_attempts=1, deadline=timedelta(minutes=1))
    now = read_clock(bench.connection)
    with signals.sent_by(bench.host):
        if end == "expire":
            endings.expire(bench.connection, now + timedelta(minutes=2))
        elif end == "discard":
            endings.discard(bench.connection, [job], now, CANARY)
        else:
            bench.dispatch()
            bench.claim(job)
            if isinstance(end, Outcome):
                ended = EndedAttempt(job, 1, bench.worker_id, "worker-1", end, attempt=1)
                endings.write_outcomes(bench.connection, [ended], now, timedelta(0))
            else:
                later = now + timedelta(seconds=1)
                endings.rescue(bench.connection, [bench.worker_id], later, CANARY)
    assert bench.job(job)["state"] == "failed"
    bench.host.telemetry.finish()
    assert [event["message"] for event in events] == ([f"note failed: {says}"] if says else [])
    assert CANARY not in json.dumps(events, default=repr)


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


_BESIDE_A_REQUEST = """
import json, sentry_sdk
from tests.support.host import create_app
from tests.support.trackers import KeptTransport
transport = KeptTransport()
sentry_sdk.init("http://key@localhost/1", transport=transport)
sentry_sdk.set_tag("service", "shop")
telemetry = create_app().extensions["opsjobs"].telemetry
facts = {"task": "note", "queue": "default", "attempt": 1, "outcome": "died", "ended_by": "exhausted"}
for who in ("anna", "ben"):
    with sentry_sdk.isolation_scope():
        sentry_sdk.set_tag("person", who)
        telemetry._report_failure(None, job_id=1, **facts)
        telemetry.thread.wait()
print(json.dumps([event["tags"] for event in transport.events]))
"""


def test_a_failure_without_an_exception_does_not_name_who_found_it(
    site: Flask, children: Children
) -> None:
    """With Sentry's integration for threads, which gives a thread the scopes of who starts it."""
    child = children.python("-c", _BESIDE_A_REQUEST)
    assert child.wait(30) == 0
    found = json.loads(child.log.splitlines()[-1])
    assert [tags["service"] for tags in found] == ["shop", "shop"]
    assert [tags.get("person") for tags in found] == [None, None]


_IN_A_THREAD = """
import contextvars, json, threading, sentry_sdk
from types import SimpleNamespace
from tests.support.host import create_app
from tests.support.trackers import KeptTransport
transport = KeptTransport()
sentry_sdk.init("http://key@localhost/1", transport=transport)
telemetry = create_app().extensions["opsjobs"].telemetry
telemetry.watch_jobs_only()

def run(number):
    job = SimpleNamespace(id=number, task="note", queue="default", attempt=1, max_attempts=1)
    with telemetry.attempt(job, "worker-1"):
        thread = threading.Thread(target=sentry_sdk.capture_message, args=[str(number)])
        thread.start()
        thread.join()

for number in (1, 2):
    contextvars.copy_context().run(run, number)
sentry_sdk.capture_message("outside")
print(json.dumps([event.get("contexts", {}).get("opsjobs", {}).get("job_id") for event in transport.events]))
"""


def test_what_a_thread_of_a_job_reports_names_the_job(site: Flask, children: Children) -> None:
    child = children.python("-c", _IN_A_THREAD)
    assert child.wait(30) == 0
    assert json.loads(child.log.splitlines()[-1]) == [1, 2, None]
