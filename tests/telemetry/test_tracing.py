"""Enqueued jobs and attempts are spans of OpenTelemetry, linked through columns of the job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sqlalchemy import text

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import InvalidArgs
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Discard
from flask_opsjobs.jobs.record.enqueue import enqueue_detached
from flask_opsjobs.testing import perform_due
from tests.engine.site import enqueue, rows, state_of
from tests.escalations.telling import Teller
from tests.support.escalating import Acting
from tests.support.host import add, die
from tests.support.processes import Children
from tests.support.trackers import read_lines
from tests.support.waiting import wait_until

# So long that no time has it, and no id by chance.
SECRET = 4711_4711_4711

Spans = Callable[[str], list[ReadableSpan]]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """The tracer provider of the host."""
    provider = TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


@pytest.fixture
def spans(provider: TracerProvider) -> Spans:
    """The ended spans whose name begins with a word, the first first."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return lambda name: [
        span for span in exporter.get_finished_spans() if span.name.startswith(name)
    ]


def identity(span: ReadableSpan) -> tuple[int, int]:
    """The ids of its trace and of itself."""
    return span.context.trace_id, span.context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """The ids of the spans that it links to."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


@pytest.mark.lane
def test_an_attempt_is_a_new_trace_that_links_to_where_its_job_was_enqueued(
    opsjobs: OpsJobs, db: Any, provider: TracerProvider, spans: Spans
) -> None:
    tracer = provider.get_tracer("host")

    @opsjobs.task(queue="mail", max_attempts=1)
    def send(number: int) -> None:
        with tracer.start_as_current_span("own"):
            pass

    with tracer.start_as_current_span("request") as request:
        job = send.enqueue(SECRET)
    db.session.commit()
    perform_due()
    (sent,), (processed,), (own,) = spans("send mail"), spans("process mail"), spans("own")
    assert sent.parent == request.get_span_context()
    assert (sent.kind, processed.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert processed.parent is None
    assert processed.context.trace_id != sent.context.trace_id
    assert linked(processed) == [identity(sent)]
    assert own.parent.span_id == processed.context.span_id
    common = {
        "messaging.system": "opsjobs",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(job.id),
        "opsjobs.task": "send",
    }
    assert common.items() <= sent.attributes.items()
    for span, operation in ((sent, "send"), (processed, "process")):
        assert span.attributes["messaging.operation.name"] == operation
        assert span.attributes["messaging.operation.type"] == operation
        assert span.attributes["messaging.client.id"]
    outcome = {"opsjobs.attempt": 1, "opsjobs.outcome": "returned"}
    assert (common | outcome).items() <= processed.attributes.items()
    assert str(SECRET) not in sent.to_json() + processed.to_json()


def test_each_attempt_of_a_job_links_to_the_same_span(
    opsjobs: OpsJobs, db: Any, spans: Spans
) -> None:
    @opsjobs.task(max_attempts=2, backoff=0)
    def broken() -> None:
        raise LookupError(f"the secret {SECRET}")

    broken.enqueue()
    db.session.commit()
    perform_due()
    (sent,), attempts = spans("send"), spans("process")
    assert [linked(span) for span in attempts] == [[identity(sent)]] * 2
    assert [span.attributes["opsjobs.attempt"] for span in attempts] == [1, 2]
    for span in attempts:
        assert (span.attributes["opsjobs.outcome"], span.attributes["error.type"]) == (
            "raised",
            "LookupError",
        )
        assert span.status.status_code is trace.StatusCode.ERROR
        assert str(SECRET) not in span.to_json()


@pytest.mark.parametrize("options", [{}, {"unique": Unique(until="ended")}])
def test_many_jobs_are_sent_by_one_span(
    opsjobs: OpsJobs, db: Any, spans: Spans, options: dict[str, Any]
) -> None:
    @opsjobs.task(**options)
    def number(n: int) -> None:
        """Nothing."""

    number.enqueue_many({"n": n} for n in range(3))
    db.session.commit()
    perform_due()
    (sent,) = spans("send default")
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert [linked(span) for span in spans("process default")] == [[identity(sent)]] * 3


def test_each_way_to_enqueue_keeps_the_context(opsjobs: OpsJobs, db: Any, spans: Spans) -> None:
    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    @opsjobs.task(unique=Unique(until="ended"))
    def single(n: int = 0) -> None:
        """Nothing."""

    plain.enqueue()
    plain.options(delay=1).enqueue()
    single.enqueue()
    with opsjobs.batch("members") as batch:
        batch.enqueue(plain)
    host = opsjobs.host
    db.session.commit()
    with connect_apart(host.engine) as connection:
        # As the cron loop does.
        enqueue_detached(connection, host, host.tasks["plain"], {})
        enqueue_detached(connection, host, host.tasks["single"], {"n": 1})
        later = read_clock(connection) + timedelta(hours=1)
    perform_due(at=later)
    sent, processed = spans("send default"), spans("process default")
    assert len(sent) == len(processed) == 6
    by_job = {span.attributes["messaging.message.id"]: identity(span) for span in sent}
    for span in processed:
        assert linked(span) == [by_job[span.attributes["messaging.message.id"]]]


def test_steps_link_to_the_start_of_their_workflow(opsjobs: OpsJobs, db: Any, spans: Spans) -> None:
    @opsjobs.task(record_output=True)
    def listed() -> list[int]:
        return [1, 2]

    @opsjobs.task
    def each(n: int) -> None:
        """Nothing."""

    flow = opsjobs.workflow("flow")
    first = flow.step("first", listed)
    flow.map("each", each, over=first.result, as_="n", after=first)
    flow.start()
    db.session.commit()
    perform_due()
    started, members = spans("send default")
    assert started.attributes["messaging.batch.message_count"] == 2
    assert members.attributes["messaging.batch.message_count"] == 2
    by_task = {span.attributes["opsjobs.task"]: span for span in spans("process default")}
    assert linked(by_task["listed"]) == [identity(started)]
    assert linked(by_task["each"]) == [identity(members)]
    (expanding,) = [task for task in by_task if task not in ("listed", "each")]
    assert linked(by_task[expanding]) == [identity(started)]
    # The members are enqueued by the job that expands the map.
    assert members.parent.span_id == by_task[expanding].context.span_id


@pytest.mark.parametrize("is_traced", [True, False])
def test_a_job_that_is_run_again_links_to_the_first_one(
    opsjobs: OpsJobs,
    db: Any,
    provider: TracerProvider,
    spans: Spans,
    monkeypatch: pytest.MonkeyPatch,
    is_traced: bool,
) -> None:
    """Through the operator's request where that is traced."""

    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    first = plain.enqueue()
    db.session.commit()
    perform_due()
    with (
        monkeypatch.context() as patch,
        provider.get_tracer("host").start_as_current_span("request"),
    ):
        if not is_traced:
            patch.setattr(trace, "_TRACER_PROVIDER", None)
        opsjobs.operator.run_again(first.id, actor="ops-demo", reason="the bank is back")
    perform_due()
    (request,), (sent, *again) = spans("request"), spans("send default")
    before, after = spans("process default")
    assert linked(before) == [identity(sent)]
    assert linked(after) == [identity(span) for span in again or [sent]]
    if is_traced:
        (again_span,) = again
        assert again_span.parent.span_id == request.context.span_id
        assert linked(again_span) == [identity(sent)]
        job = after.attributes["messaging.message.id"]
        assert again_span.attributes["messaging.message.id"] == job != str(first.id)


def test_callbacks_link_to_what_began_their_run_or_batch(
    opsjobs: OpsJobs, db: Any, provider: TracerProvider, spans: Spans
) -> None:
    @opsjobs.task
    def plain(fails: bool = False) -> None:
        if fails:
            raise Discard("no")

    @opsjobs.task
    def run_ended(workflow_id: int) -> None:
        """Nothing."""

    @opsjobs.task
    def batch_failed(batch_id: int) -> None:
        """Nothing."""

    @opsjobs.task
    def batch_ended(batch_id: int) -> None:
        """Nothing."""

    flow = opsjobs.workflow("flow", on_end=run_ended)
    flow.step("only", plain)
    flow.start()
    with (
        provider.get_tracer("host").start_as_current_span("request"),
        opsjobs.batch("members", on_end=batch_ended, on_failure=batch_failed) as batch,
    ):
        batch.enqueue(plain, fails=True)
    opsjobs.batch("of nobody", on_end=batch_ended).open().close()
    db.session.commit()
    perform_due()
    (request,), (started, _) = spans("request"), spans("send default")
    links: dict[Any, list[list[tuple[int, int]]]] = {}
    for span in spans("process default"):
        links.setdefault(span.attributes["opsjobs.task"], []).append(linked(span))
    assert links["run_ended"] == [[identity(started)]]
    assert links["batch_failed"] == [[identity(request)]]
    assert sorted(links["batch_ended"]) == [[], [identity(request)]]


def test_an_escalation_links_to_the_job_that_its_incident_is_about(
    host: Host, opsjobs: OpsJobs, db: Any, spans: Spans, tmp_path: Path
) -> None:
    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    job = plain.enqueue()
    db.session.commit()
    host.escalation = Acting(tmp_path)
    teller = Teller(host)
    teller.find(subject=f"job/{job.id}")
    teller.find()
    teller.once()
    teller.close()
    (sent,), (told,) = spans("send default"), spans("send opsjobs")
    assert told.parent is None
    assert linked(told) == [identity(sent)]
    assert told.attributes["messaging.batch.message_count"] == 2
    (stored,) = db.session.scalars(
        text("SELECT DISTINCT traceparent FROM opsjobs.jobs WHERE queue = 'opsjobs'")
    ).all()
    assert stored.split("-")[1:3] == [
        f"{told.context.trace_id:032x}",
        f"{told.context.span_id:016x}",
    ]


def test_a_call_that_is_refused_is_a_span_with_an_error(
    opsjobs: OpsJobs, db: Any, spans: Spans
) -> None:
    @opsjobs.task
    def number(n: int) -> None:
        """Nothing."""

    with pytest.raises(InvalidArgs):
        number.enqueue(f"the secret {SECRET}")
    (sent,) = spans("send default")
    assert sent.attributes["error.type"] == "flask_opsjobs.errors.InvalidArgs"
    assert str(SECRET) not in sent.to_json()


@pytest.mark.parametrize("way", ["no provider", "not sampled"])
def test_without_a_recorded_span_nothing_is_stored(
    opsjobs: OpsJobs, db: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF) if way == "not sampled" else None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    plain.enqueue()
    assert db.session.execute(text("SELECT traceparent, tracestate FROM opsjobs.jobs")).one() == (
        None,
        None,
    )


def test_a_tracer_that_raises_costs_no_job(
    opsjobs: OpsJobs, db: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("no tracer")

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Broken())

    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    plain.enqueue()
    db.session.commit()
    assert perform_due().jobs[0].state == "finished"
    assert "telemetry failed: RuntimeError" in caplog.text


def test_a_provider_that_cannot_be_loaded_costs_no_job(
    opsjobs: OpsJobs, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "of_nobody")
    with pytest.raises(StopIteration):
        trace.get_tracer_provider()

    @opsjobs.task
    def plain() -> None:
        """Nothing."""

    plain.enqueue()
    db.session.commit()
    assert perform_due().jobs[0].state == "finished"


# --- processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_no_span_is_lost_when_a_process_leaves(
    site: Flask, children: Children, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    """Though the exporter would wait a minute: one process dies in its job, and another one ends after it."""
    path = tmp_path / "spans"
    jobs = [enqueue(die), enqueue(add, a=1, b=2)]
    worker = children.flask("opsjobs", "worker", *kind, SPANS_TO=str(path))
    children.flask("opsjobs", "run")
    wait_until(lambda: [state_of(job) for job in jobs] == ["finished"] * 2, 30)
    worker.terminate()
    found = {
        (
            int(span["attributes"]["messaging.message.id"]),
            span["attributes"]["opsjobs.attempt"],
        ): span
        for span in read_lines(path)
    }
    assert found.keys() == {(jobs[0], 2), (jobs[1], 1)}
    second = found[jobs[0], 2]["attributes"]
    assert second["opsjobs.previous_attempt.death"] == "signal"
    assert second["opsjobs.previous_attempt.cause_of_death"] == "killed by SIGKILL"
    assert "opsjobs.previous_attempt.death" not in found[jobs[1], 1]["attributes"]


@pytest.mark.slow
def test_a_job_that_the_process_of_the_loops_enqueues_links_to_its_span(
    site: Flask, children: Children, tmp_path: Path
) -> None:
    """The loop `cron` runs in a thread of that process, which ends before its exporter would export.

    Waits for the next minute, which costs the machine next to nothing.
    """
    path, started = tmp_path / "spans", tmp_path / "started"
    config = {"SPANS_TO": str(path), "STARTS_EACH_MINUTE": [str(started)]}
    loops = children.flask("opsjobs", "run", **config)
    worker = children.flask("opsjobs", "worker", **config)
    wait_until(started.exists, 90, every=0.5)
    ended = "SELECT FROM opsjobs.jobs WHERE cron_entry = 'started' AND state = 'finished'"
    wait_until(lambda: rows(ended), 30)
    assert (loops.terminate(), worker.terminate()) == (0, 0)
    by_name = {
        name: {
            span["attributes"]["messaging.message.id"]: span
            for span in read_lines(path)
            if span["name"] == name
        }
        for name in ("send default", "process default")
    }
    assert by_name["process default"]
    for job, span in by_name["process default"].items():
        sent = by_name["send default"][job]
        assert sent["parent_id"] is None
        assert [link["context"] for link in span["links"]] == [
            {**sent["context"], "trace_state": "[]"}
        ]


_IMPORTS_NOTHING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("opentelemetry", "sentry_sdk"):
            frame = sys._getframe(1)
            while frame is not None:
                if frame.f_globals.get("__name__", "").startswith("flask_opsjobs.telemetry"):
                    raise SystemExit(f"{name} was imported")
                frame = frame.f_back
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from tests.support.host import add, create_app, db
from flask_opsjobs.testing import perform_due
with create_app(TESTING=True).app_context():
    add.enqueue(1, 2)
    db.session.commit()
    print(perform_due().jobs[0].state)
"""


@pytest.mark.slow
def test_without_them_nothing_of_opentelemetry_and_sentry_is_imported(children: Children) -> None:
    child = children.start(sys.executable, "-c", _IMPORTS_NOTHING)
    assert child.wait(30) == 0, child.log
    assert child.log.split() == ["finished"]
