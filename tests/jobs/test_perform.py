from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import Cancel, Discard, OpsJobs, RetryIn, Snooze, current_job, signals
from flask_opsjobs.jobs.lifecycle import ENDED_BY, OUTCOMES
from flask_opsjobs.jobs.perform.current import Stopped
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.perform.perform import Report, perform
from flask_opsjobs.jobs.record.declaration import TaskDeclaration
from tests.support.jobs import NOW, Notebook, make_claimed


def make(function: Callable[..., Any], **options: Any) -> TaskDeclaration:
    options.setdefault("backoff", 9)
    return TaskDeclaration(function, name="once", **options)


def run(task: TaskDeclaration, args: dict[str, Any] | None = None, **changes: Any) -> Outcome:
    """The outcome of one attempt, which is one that the record knows and a frame can carry."""
    report = changes.pop("report", None) or Notebook()
    outcome = perform({"once": task}, make_claimed(task, args, **changes), report)
    assert outcome.kind in OUTCOMES
    assert outcome.ended_by in (None, *ENDED_BY)
    json.dumps(vars(outcome)).encode()
    return outcome


def raising(error: BaseException) -> Callable[[], None]:
    def once() -> None:
        raise error

    return once


# --- before the function


def test_an_unknown_worker_ends_the_job() -> None:
    outcome = perform({}, make_claimed("gone"), Notebook())
    assert (outcome.kind, outcome.ended_by) == ("not_run", "unknown_task")
    assert outcome.error is not None
    assert "no task 'gone' is declared here" in outcome.error


def test_a_job_past_its_deadline_is_not_called() -> None:
    called: list[int] = []
    task = make(lambda: called.append(1))
    for late in (timedelta(0), timedelta(hours=1)):
        outcome = run(task, deadline_at=NOW - late)
        assert (outcome.kind, outcome.ended_by) == ("not_run", "deadline")
    assert called == []
    assert run(task, deadline_at=NOW + timedelta(seconds=1)).kind == "returned"
    assert called == [1]


def test_a_function_whose_annotations_changed_since_the_enqueue() -> None:
    called: list[Any] = []

    def once(a: int, c: int = 0) -> None:
        called.append(a)

    outcome = run(make(once), {"a": "s3cr3t-value", "b": 2})
    assert (outcome.kind, outcome.ended_by) == ("not_run", "invalid_args")
    assert outcome.error == (
        "task once: a: Input should be a valid integer, unable to parse string as an integer; "
        "b: the task takes no such argument"
    )
    assert called == []
    assert run(make(once), {"a": 5}).kind == "returned"


# --- how it ends


def test_it_returns() -> None:
    def once(a: int, b: int = 2) -> int:
        return a + b

    assert run(make(once), {"a": 1}) == Outcome("returned")
    assert run(make(once, record_output=True), {"a": 1}) == Outcome(
        "returned", output="3", output_bytes=1
    )


class Deferred:
    """Callables that look plain where they are declared; `done` tells which of their bodies ran."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def coroutine(self) -> Any:
        async def body() -> None:
            self.done.append("ran")

        return body()

    def generator(self) -> Any:
        return (self.done.append("ran") for _ in range(3))

    def async_generator(self) -> Any:
        async def body() -> AsyncIterator[int]:
            self.done.append("ran")
            yield 1

        return body()

    def future(self) -> Any:
        return asyncio.Future(loop=LOOP)


LOOP = asyncio.new_event_loop()
LOOP.close()
AWAIT = "declare the async def itself, or call asyncio.run(…) inside a plain function"
ITERATE = "loop over it inside the function, and return a value"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("method", "type_name", "advice"),
    [
        ("coroutine", "coroutine", AWAIT),
        ("future", "Future", AWAIT),
        ("generator", "generator", ITERATE),
        ("async_generator", "async_generator", ITERATE),
    ],
)
def test_a_call_whose_code_has_not_run_fails(method: str, type_name: str, advice: str) -> None:
    deferred = Deferred()
    hooks: list[str] = []
    task = make(
        getattr(deferred, method),
        record_output=True,
        on_success=lambda job, value: hooks.append("success"),
        on_failure=lambda job, error: hooks.append(type(error).__name__),
    )
    outcome = run(task)
    assert (outcome.kind, outcome.output, outcome.delay_seconds) == ("raised", None, 9)
    assert outcome.error == (
        f"TypeError: task once returned an object of type {type_name}, "
        f"whose code has not run: {advice}"
    )
    assert (deferred.done, hooks) == ([], ["TypeError"])


WORD = ContextVar("word", default="none")


async def _note(seen: list[str]) -> None:
    seen.append(WORD.get())
    WORD.set("set in another coroutine")


def test_an_async_function_runs_to_its_end() -> None:
    seen: list[str] = []

    async def once(a: int) -> int:
        assert current_job().attempt == 1
        await asyncio.gather(_note(seen), _note(seen))
        seen.append(WORD.get())
        return a + 1

    token = WORD.set("set around the job")
    try:
        assert run(make(once, record_output=True), {"a": 1}).output == "2"
    finally:
        WORD.reset(token)
    assert seen == ["set around the job"] * 3


def test_an_async_function_fails_as_a_plain_one_does() -> None:
    async def fails() -> None:
        await asyncio.to_thread(int)
        raise RuntimeError("it broke")

    async def snoozes() -> None:
        raise Snooze(5)

    outcome = run(make(fails))
    assert (outcome.kind, outcome.error) == ("raised", "RuntimeError: it broke")
    assert "in fails" in (outcome.traceback or "")
    assert run(make(snoozes)).kind == "snoozed"


@pytest.mark.parametrize("block", [False, True])
def test_an_async_function_ends_at_its_time_limit(block: bool) -> None:
    """It waits in the loop, or computes and lets nothing else run."""
    ended: list[str] = []

    async def once() -> None:
        try:
            if block:
                threading.Event().wait(30)
            await asyncio.Event().wait()
        finally:
            ended.append("finally")

    assert run(make(once), timeout_seconds=1).kind == "timed_out"
    assert ended == ["finally"]


def test_an_awaited_coroutine_and_a_list_of_a_generator_are_values() -> None:
    async def two() -> int:
        return 2

    assert run(make(lambda: asyncio.run(two()), record_output=True)).output == "2"
    assert run(make(lambda: list(range(2)), record_output=True)).output == "[0,1]"


@pytest.mark.parametrize(
    ("value", "size", "omitted"),
    [
        (
            "x" * 1_000,
            1_002,
            "the result is 1002 bytes as JSON, more than OPSJOBS_MAX_OUTPUT_BYTES = 1000: store it elsewhere "
            "and return a reference to it",
        ),
        (object(), 0, "the result is of type object, which JSON does not know"),
        ("\0", 0, "the result has a NUL character, which Postgres cannot store"),
    ],
)
def test_an_output_that_cannot_be_kept_is_omitted(value: Any, size: int, omitted: str) -> None:
    outcome = run(make(lambda: value, record_output=True))
    assert outcome == Outcome("returned", output_bytes=size, output_omitted=omitted)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such account"), "ValueError: no such account"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "MemoryError"),
        (ValueError("nul \0 half \ud800"), "ValueError: nul \ufffd half \ufffd"),
    ],
)
def test_whatever_it_raises_is_a_failed_attempt(error: BaseException, said: str) -> None:
    outcome = run(make(raising(error)))
    assert (outcome.kind, outcome.error, outcome.delay_seconds) == ("raised", said, 9)
    assert outcome.traceback is not None
    assert outcome.traceback.startswith("Traceback (most recent call last):\n")
    # From the function on: our own frames say nothing to its author.
    assert "perform.py" not in outcome.traceback.replace("test_perform.py", "")


def test_memory_that_is_really_gone_is_a_failed_attempt() -> None:
    def once() -> None:
        bytearray(1 << 60)

    outcome = run(make(once))
    assert (outcome.kind, outcome.error) == ("raised", "MemoryError")


def test_a_bottomless_recursion_is_a_failed_attempt() -> None:
    def once() -> None:
        once()

    outcome = run(make(once))
    assert outcome.kind == "raised"
    assert outcome.error is not None
    assert outcome.error.startswith("RecursionError")


def test_cancel() -> None:
    assert run(make(raising(Cancel("not needed")))) == Outcome("canceled", reason="not needed")


def test_discard() -> None:
    outcome = run(make(raising(Discard("no such account\0"))))
    assert outcome.failure_key is not None
    assert replace(outcome, failure_key=None) == Outcome(
        "discarded", error="no such account\ufffd", reason="no such account\ufffd"
    )


@pytest.mark.parametrize("seconds", [60, 60.0, timedelta(minutes=1)])
def test_snooze_and_retry_in(seconds: Any) -> None:
    assert run(make(raising(Snooze(seconds)))) == Outcome("snoozed", delay_seconds=60)
    assert run(make(raising(Snooze(seconds, "busy")))) == Outcome(
        "snoozed", reason="busy", delay_seconds=60
    )
    outcome = run(make(raising(RetryIn(seconds, "busy"))))
    assert outcome.failure_key is not None
    assert replace(outcome, failure_key=None) == Outcome(
        "retry_in", error="busy", reason="busy", delay_seconds=60
    )
    outcome = run(make(raising(RetryIn(seconds))))
    assert outcome.error == "asked for another attempt in 60 s"


def test_what_led_to_a_decision_is_kept() -> None:
    def once() -> None:
        try:
            raise ConnectionError("refused")
        except ConnectionError as error:
            raise RetryIn(5) from error

    outcome = run(make(once))
    assert outcome.kind == "retry_in"
    assert outcome.traceback is not None
    assert "ConnectionError: refused" in outcome.traceback


@pytest.mark.parametrize("kind", [Snooze, RetryIn])
@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "5", None, True, 10**400])
def test_bad_seconds_are_a_failed_attempt(kind: Any, seconds: Any) -> None:
    outcome = run(make(lambda: raising(kind(seconds))()))
    assert (outcome.kind, outcome.delay_seconds) == ("raised", 9)
    assert outcome.error is not None
    assert outcome.error.startswith(
        f"ValueError: {kind.__name__} takes seconds from 0 to 100 years, got {seconds!r}"[:60]
    )


def test_the_time_limit() -> None:
    seen: list[BaseException] = []

    def once() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            pass

    task = make(once, on_failure=lambda job, error: seen.append(error))
    outcome = run(task, timeout_seconds=0.05)
    assert (outcome.kind, outcome.delay_seconds) == ("timed_out", 9)
    assert outcome.error == "JobTimedOut: ran longer than 0.05 s"
    assert outcome.traceback is not None
    assert "in once" in outcome.traceback
    assert len(seen) == 1
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_stop_ends_it_canceled() -> None:
    def once() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            threading.Event().wait(10)
        except Exception:
            pytest.fail("a function must not take it for its own")

    def stop(*_: Any) -> None:
        raise Stopped("canceled while it ran")

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        outcome = run(make(once))
    finally:
        signal.signal(signal.SIGUSR1, before)
    said = "canceled while it ran"
    assert outcome == Outcome("canceled", error=said, reason=said)
    assert run(make(raising(Stopped()))).reason == "stopped while it ran"


def test_a_stop_before_the_function_counts_and_one_after_it_does_not() -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    assert run(make(lambda: None, on_start=stop)).kind == "canceled"
    assert run(make(lambda: None, on_success=stop)).kind == "returned"
    assert run(make(raising(ValueError("a")), on_failure=stop)).kind == "raised"


def test_what_breaks_around_the_function_is_a_failed_attempt() -> None:
    class Broken(Notebook):
        @property
        def log_tail(self) -> Any:
            return None

        @log_tail.setter
        def log_tail(self, ring: Any) -> None: ...

        @property
        def max_output_bytes(self) -> Any:
            raise LookupError("no app")

        @max_output_bytes.setter
        def max_output_bytes(self, most: Any) -> None: ...

    outcome = run(make(lambda: 1, record_output=True), report=Broken())
    assert (outcome.kind, outcome.error) == ("raised", "LookupError: no app")


# --- hooks


def test_hooks_observe() -> None:
    seen: list[Any] = []
    hooks = {
        name: lambda job, *rest, name=name: seen.append((name, job.id, *rest))
        for name in ("on_start", "on_success", "on_failure")
    }
    run(make(lambda: "value", **hooks))
    assert seen == [("on_start", 7), ("on_success", 7, "value")]
    for error, kind in (
        (ValueError("a"), "raised"),
        (RetryIn(1), "retry_in"),
        (Discard("x"), "discarded"),
        (Cancel("x"), "canceled"),
        (Snooze(1), "snoozed"),
    ):
        seen.clear()
        assert run(make(raising(error), **hooks)).kind == kind
        failed = [("on_failure", 7, error)] if kind not in ("canceled", "snoozed") else []
        assert seen == [("on_start", 7), *failed]


@pytest.mark.parametrize("error", [ValueError("s3cret"), SystemExit("s3cret"), KeyboardInterrupt()])
def test_a_crash_in_a_hook_is_logged_and_changes_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*_: Any) -> None:
        raise error

    task = make(lambda: 5, on_start=crash, on_success=crash, record_output=True)
    assert replace(run(task), log_tail=None) == Outcome("returned", output="5", output_bytes=1)
    failed = run(make(raising(KeyError("s3cret")), on_failure=crash))
    assert (failed.kind, failed.error) == ("raised", "KeyError: 's3cret'")
    assert "s3cret" not in caplog.text
    for name in ("on_start", "on_success", "on_failure"):
        place = f"({type(error).__name__} at {__file__}:"
        assert f"the hook {name} of task once raised {place}" in caplog.text
        # It stands among the job's own last words too.
    assert failed.log_tail is not None
    assert "the hook on_failure of task once raised" in failed.log_tail


# --- what it may know and tell while it runs


def test_current_job_and_progress() -> None:
    def once(a: int) -> list[Any]:
        job = current_job()
        job.progress(1, 10, "begun")
        job.progress(10, 10, "done")
        return [job.id, job.attempt, job.meta, list(job.tags)]

    report = Notebook()
    task = make(once, record_output=True)
    outcome = run(task, {"a": 1}, attempt=3, meta={"b": 2}, tags=["c"], report=report)
    assert outcome.output == '[7,3,{"b":2},["c"]]'
    assert report.told == [(1, 10, "begun"), (10, 10, "done")]


def test_the_last_words_are_kept() -> None:
    def once() -> None:
        log = logging.getLogger("tests.perform")
        log.warning("about to fail")
        raise ValueError("a")

    outcome = run(make(once))
    assert outcome.log_tail is not None
    assert outcome.log_tail.endswith("WARNING tests.perform: about to fail")
    assert run(make(once), report=Report(None, 1_000)).log_tail is None
    assert run(make(lambda: None)).log_tail is None


def test_the_declared_worker_runs_in_its_app(opsjobs: OpsJobs, db: Any) -> None:
    @opsjobs.task(record_output=True)
    def once(words: str) -> str:
        return words * 2

    outcome = perform(opsjobs.tasks, make_claimed(once, {"words": "ab"}), Notebook())
    assert outcome.output == '"abab"'


# --- its events


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit])
def test_what_a_receiver_raises_changes_no_outcome(raised: type[BaseException]) -> None:
    heard: list[tuple[str, Any]] = []

    def leave(sender: object, **facts: Any) -> None:
        heard.append((facts.get("outcome", "started"), facts.get("exception")))
        raise raised

    error = ValueError("of the function")
    with (
        signals.attempt_started.connected_to(leave),
        signals.attempt_raised.connected_to(leave),
    ):
        outcome = run(make(raising(error)), attempt=1, max_attempts=1)
        assert (outcome.kind, outcome.error) == ("raised", "ValueError: of the function")
        assert heard == [("started", None), ("raised", error)]
        assert run(make(lambda: None)).kind == "returned"


def test_only_failures_are_told_as_raised() -> None:
    heard: list[tuple[str, bool]] = []

    def hear(sender: object, **facts: Any) -> None:
        heard.append((facts["outcome"], facts["is_last"]))

    ends = (Cancel("so"), Snooze(1), Discard("so"), RetryIn(1), RuntimeError())
    with signals.attempt_raised.connected_to(hear):
        for error in ends:
            run(make(raising(error)))
    assert heard == [("discarded", True), ("retry_in", False), ("raised", False)]
