"""Lets real writers store a canary in each place where a host, a person or RQ puts a text."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis import Redis
from rq import Queue, SimpleWorker, get_current_job
from typing_extensions import override

from flask_opsjobs import JobFilter, Limit, OpsJobs, current_job, signals
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.secret_patterns import clean_secrets
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.failures import deploys
from flask_opsjobs.host import Host
from flask_opsjobs.loops import LOOPS, escalate
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing import perform_due

from .engine import Bench, tasks_of
from .escalating import Acting
from .waiting import wait_until

PLACES = (
    "argument value",
    "argument in a list",
    "argument key",
    "default of a parameter",
    "value under a hidden key",
    "meta value",
    "meta key",
    "tag",
    "output value",
    "output key",
    "error",
    "error that is retried",
    "error that hooks and receivers tell",
    "cause of an error",
    "line of a traceback",
    "log line",
    "log line of a failure",
    "progress note",
    "partition",
    "reason of a cancel",
    "reason of a pause",
    "reason of a task pause",
    "reason of a cooldown",
    "reason of a refusal",
    "cron argument",
    "reason of a cron entry",
    "workflow context",
    "step argument",
    "step output",
    "skip result",
    "reason of a skip",
    "signal payload",
    "signal key",
    "operator payload",
    "argument in a preview of an edit",
    "argument in a preview of an enqueue",
    "batch meta",
    "reason of a batch",
    "deploy version",
    "deploy note",
    "reason of a failure",
    "reason of an operation",
    "reason of an acknowledgement",
    "reason of a note",
    "rq argument",
    "rq keyword",
    "rq keyword name",
    "rq description",
    "rq meta",
    "rq result",
    "rq error",
    "password in a URL",
    "password in an error",
)


def canary(place: str) -> str:
    """The text that is put there and nowhere else: letters only, so that each writer takes it."""
    return f"zq{re.sub('[^a-z]', '', place.lower())}qz"


CANARIES = {place: canary(place) for place in PLACES}
ACTOR = "anna"
_log = logging.getLogger("shop")


class HidesCanaries:
    """Hides canaries wherever it is asked: passwords as the installed starter does, one by its key."""

    def is_hidden_key(self, key: str) -> bool:
        return key == "iban"

    def clean_text(self, text: str) -> str:
        return re.sub("zq(?!password|value)[a-z]+qz", "[hidden]", clean_secrets(text))


class Raises:
    """A display policy that cannot decide."""

    def is_hidden_key(self, key: str) -> bool:
        raise RuntimeError("no")

    def clean_text(self, text: str) -> str:
        raise RuntimeError("no")


def plain_job(*_values: Any, **_named: Any) -> Any:
    """A function of plain RQ."""
    job = get_current_job()
    assert job is not None
    job.meta["more"] = CANARIES["rq meta"]
    job.save_meta()
    return {"result": CANARIES["rq result"]}


def plain_failure() -> None:
    raise ValueError(CANARIES["rq error"])


def tell_on(*given: Any, **facts: Any) -> Any:
    """A hook or a receiver of a host that raises with all that it knows."""
    known = *given, *facts.values(), sys.exception()
    raise RuntimeError(" ".join(map(str, known)))


class _Log(logging.Handler):
    """Adds to `heard` what our loggers write, with all that a formatter may make of it."""

    def __init__(self, heard: dict[str, str]) -> None:
        super().__init__()
        self._heard = heard

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._heard["log"] += f"{self.format(record)}\n"
        if record.exc_info and record.exc_info[1] is not None:
            self._heard["log"] += "".join(traceback.format_exception(record.exc_info[1]))


class Story:
    """An app in which each writer has stored its canary."""

    def __init__(self, app: Flask, opsjobs: OpsJobs, bench: Bench, redis: Redis) -> None:
        self.app, self.opsjobs, self.bench, self.redis = app, opsjobs, bench, redis
        self.host: Host = app.extensions["opsjobs"]
        self._heard: dict[str, str] = defaultdict(str)
        self._spans = InMemorySpanExporter()
        self._previews: list[int] = []
        # Of events: the one fact that holds the error of a job, as docs/events.md says.
        self.exceptions = ""
        self.db: SQLAlchemy = app.extensions["sqlalchemy"]

    def why(self, place: str) -> dict[str, Any]:
        """Who does something, and the reason that holds the canary of this place."""
        return {"actor": ACTOR, "reason": f"because of {CANARIES[place]}", "authorize": False}

    def tell(self) -> None:
        """Let everything happen, each by its real writer."""
        with signals.attempt_raised.connected_to(tell_on):
            self._jobs()
        self._limits()
        self._cron()
        self._workflow()
        self._batch()
        self._plain_jobs()
        self.pass_loops()
        self._decisions()
        self.pass_loops()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what events, spans and our log say in this block."""
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        ours, log = logging.getLogger("flask_opsjobs"), _Log(self._heard)
        before, trace._TRACER_PROVIDER = trace._TRACER_PROVIDER, provider
        ours.addHandler(log)
        try:
            with ExitStack() as receivers:
                for kind in signals.EVENTS.values():
                    hear = partial(self._hear, f"event {kind.name}")
                    sent = getattr(signals, kind.name)
                    receivers.enter_context(sent.connected_to(hear))
                yield
        finally:
            ours.removeHandler(log)
            trace._TRACER_PROVIDER = before

    def _hear(self, name: str, sender: object, /, **facts: Any) -> None:
        if (error := facts.pop("exception", None)) is not None:
            self.exceptions += repr(error)
        self._heard[name] += repr(facts)

    def heard(self) -> dict[str, str]:
        """All that events, spans and our log have said so far, by name."""
        spans: dict[str, str] = defaultdict(str)
        for span in self._spans.get_finished_spans():
            spans[f"span {span.name}"] += span.to_json()
        return self._heard | spans

    def pass_loops(self, times: int = 2) -> None:
        """Make passes of all loops, as `flask opsjobs run` does."""
        runners = [Runner(loop, self.host, "here-1") for loop in LOOPS]
        for runner in runners * times:
            runner.run_once(self.bench.connection)
        assert [runner.last_error for runner in runners if runner.last_error] == []

    def _commit(self) -> None:
        self.db.session.commit()
        perform_due()

    def _jobs(self) -> None:
        now = read_clock(self.bench.connection)
        deploys.mark(
            self.bench.connection,
            CANARIES["deploy version"],
            now,
            actor=ACTOR,
            note=CANARIES["deploy note"],
        )

        @self.opsjobs.task(record_output=True, on_success=tell_on, enqueue_from_page=True)
        def keep(value: Any, note: str = CANARIES["default of a parameter"]) -> Any:
            _log.warning("has %s", CANARIES["log line"])
            current_job().progress(1, 2, CANARIES["progress note"])
            return {"value": CANARIES["output value"], CANARIES["output key"]: 1}

        @self.opsjobs.task(max_attempts=1)
        def break_down(url: str) -> None:
            _log.warning("has %s", CANARIES["log line of a failure"])
            try:
                raise KeyError(CANARIES["cause of an error"])
            except KeyError as error:
                raise RuntimeError(CANARIES["error"]) from error  # zqlineofatracebackqz

        @self.opsjobs.task(max_attempts=1)
        def connect() -> None:
            raise ConnectionError(f"redis://shop:{CANARIES['password in an error']}@db.example/0")

        @self.opsjobs.task(max_attempts=5, backoff=3600)
        def try_again() -> None:
            raise RuntimeError(CANARIES["error that is retried"])

        @self.opsjobs.task(max_attempts=1, on_failure=tell_on, failure_key=tell_on, backoff=tell_on)
        def break_hooks() -> None:
            raise LookupError(CANARIES["error that hooks and receivers tell"])

        argument = {
            "value": CANARIES["argument value"],
            "list": [{"deep": [CANARIES["argument in a list"]]}],
            CANARIES["argument key"]: 1,
            "iban": CANARIES["value under a hidden key"],
        }
        meta = {"value": CANARIES["meta value"], CANARIES["meta key"]: 1}
        tags = [CANARIES["tag"]]
        keep.options(tags=tags, meta=meta).enqueue(argument)
        break_down.enqueue(f"https://shop:{CANARIES['password in a URL']}@example.com/")
        connect.enqueue()
        try_again.enqueue()
        break_hooks.enqueue()
        self._commit()
        keep.options(delay=3600, tags=tags, meta=meta).enqueue(argument)
        other = keep.options(delay=3600, priority=1).enqueue(1).id
        self.db.session.commit()
        self.opsjobs.operator.cancel(other, **self.why("reason of a cancel"))

    def _limits(self) -> None:
        @self.opsjobs.task(
            queue="limited", limit=Limit("api", rate=1, per=60, partition="customer")
        )
        def call(customer: str) -> None: ...

        declare_limiters(self.host, "here-1")
        partition = CANARIES["partition"]
        first = call.enqueue(partition).id
        call.enqueue(partition)
        self.db.session.commit()
        self.bench.dispatch(f"limited|api|{partition}")
        self.bench.claim(first)
        self.opsjobs.operator.cooldown("api", 30, **self.why("reason of a cooldown"))
        self.opsjobs.operator.pause("limited", **self.why("reason of a pause"))
        # Its job waits for another attempt, and says why.
        self.opsjobs.operator.pause_task("try_again", **self.why("reason of a task pause"))

    def _cron(self) -> None:
        values = {
            "task": "keep",
            "expression": "0 3 * * *",
            "zone": "UTC",
            "overlap": None,
            "catch_up": None,
            "args": {"value": CANARIES["cron argument"]},
        }
        self.opsjobs.operator.create_cron("nightly", values, **self.why("reason of a cron entry"))

    def _workflow(self) -> None:
        @self.opsjobs.task(record_output=True)
        def take(value: Any) -> Any:
            return CANARIES["step output"]

        def start(key: str) -> int:
            flow = self.opsjobs.workflow("order", context={"of": CANARIES["workflow context"]})
            first = flow.step("first", take, value=CANARIES["step argument"])
            paid = flow.wait("paid", signal="payment", key=key, after=first)
            flow.step("last", take, value=1, after=paid)
            return flow.start().id

        _, other = start(CANARIES["signal key"]), start("other")
        self._commit()
        self.opsjobs.signal(
            "payment",
            key=CANARIES["signal key"],
            payload={"of": CANARIES["signal payload"]},
        )
        self._commit()
        why = self.why("reason of a skip")
        self.opsjobs.operator.skip_step(other, "last", CANARIES["skip result"], **why)
        self.opsjobs.operator.send_signal(other, "paid", CANARIES["operator payload"], **why)

    def _batch(self) -> None:
        keep = tasks_of(self.host)["keep"]
        with self.opsjobs.batch("import", meta={"of": CANARIES["batch meta"]}) as batch:
            batch.enqueue_many(keep.options(delay=3600), [{"value": 1}, {"value": 2}])
        self.db.session.commit()
        self.opsjobs.operator.cancel_batch(batch.id, **self.why("reason of a batch"))

    def _plain_jobs(self) -> None:
        queue = Queue("plain", connection=self.redis)
        call: dict[str, Any] = {
            "args": ({"of": CANARIES["rq argument"]},),
            "kwargs": {"named": CANARIES["rq keyword"], CANARIES["rq keyword name"]: 1},
            "meta": {"of": CANARIES["rq meta"]},
            "description": f"sends {CANARIES['rq description']}",
        }
        queue.enqueue_call(plain_job, **call)
        queue.enqueue_call(plain_failure)
        worker = SimpleWorker([queue], connection=self.redis)
        worker.work(burst=True, with_scheduler=False, logging_level="CRITICAL")
        queue.enqueue_call(plain_job, **call)

    def _decisions(self) -> None:
        operator = self.opsjobs.operator
        # Of two each; the other one is told to the escalation policy.
        failure, _ = self.bench.rows("SELECT id FROM opsjobs.failures ORDER BY id LIMIT 2")
        operator.resolve_failure(failure["id"], "next", **self.why("reason of a failure"))
        incident, _ = self.bench.rows("SELECT id FROM opsjobs.incidents ORDER BY id LIMIT 2")
        why = self.why("reason of an acknowledgement")
        operator.acknowledge_incident(incident["id"], "2h", **why)
        for subject in ("job/1", f"failure/{failure['id']}", f"incident/{incident['id']}"):
            why = self.why("reason of a note")
            operator.note(subject, why["reason"], actor=why["actor"])
        operator.start(
            "job.cancel", JobFilter(state="scheduled"), **self.why("reason of an operation")
        )
        who: Any = {"actor": ACTOR, "via": "page", "authorize": False}
        shown = operator.preview("cron.pause", ["cron/nightly"], **who)
        operator.pause_cron("nightly", **self.why("reason of a cron entry"))
        why = self.why("reason of a refusal")
        assert operator.execute(shown.id, shown.token, **why).outcome == "refused"

    def addresses_of_previews(self, reader: str) -> list[str]:
        """The pages of all previews made here, now once more: two name the arguments of what would run.

        Those made before were made under another display policy.
        """
        who: Any = {"actor": reader, "via": "page", "authorize": False}
        waiting = "SELECT id FROM opsjobs.jobs WHERE task = 'call' AND state = 'available'"
        edit = {"customer": CANARIES["argument in a preview of an edit"]}
        call = {"value": CANARIES["argument in a preview of an enqueue"]}
        shown = [
            self.opsjobs.operator.preview(action, [target], params=params, **who)
            for action, target, params in (
                ("cron.run_now", "cron/nightly", {}),
                (
                    "job.edit",
                    f"job/{self.bench.row(waiting)['id']}",
                    {"queue": None, "priority": None, "args": edit},
                ),
                ("task.enqueue", "task/keep", {"args": call}),
            )
        ]
        assert all(preview.plan.items for preview in shown)
        self._previews += [preview.id for preview in shown]
        return [f"/ops/jobs/previews/{id}" for id in self._previews]

    def escalate(self, policy: Acting) -> str:
        """Let the real loop tell the escalation policy of every incident; all that it was told."""
        connection = self.bench.connection
        connection.execute("DELETE FROM opsjobs.escalations")
        self.host.escalation = policy
        runner = Runner(escalate.LOOP, self.host, "here-1")
        tell = "SELECT count(*) AS number FROM opsjobs.escalations WHERE state = 'invoked'"
        try:

            def is_told() -> bool:
                runner.run_once(connection)
                return int(self.bench.row(tell)["number"]) >= 1

            wait_until(is_told, 60, what="an escalation to be told")
        finally:
            runner.stop(connection)
            self.host.escalation = None
        return policy.calls.read_text()
