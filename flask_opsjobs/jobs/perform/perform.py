"""Performs a claimed job: calls its function within its time limit and turns every end into an outcome.

A returned value becomes JSON, or a reason why it cannot; the job finishes in both cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any

from blinker import NamedSignal

from ... import signals
from ...errors import InvalidArgs
from ...host import Connect
from ...policy import describe_failure
from .. import failure_key, host_code
from ..record import json_storage
from ..record.declaration import TaskDeclaration
from ..record.json_storage import clean_text
from ..record.options import seconds_of
from . import backoff as retry
from . import describe_error, log_context, log_tail
from .current import Claimed, Running, Stopped, Tell
from .outcomes import RETURNED, Cancel, Discard, EndedBy, Outcome, RetryIn, Snooze

_log = logging.getLogger("flask_opsjobs.jobs")

_FAILURES = ("raised", "timed_out", "retry_in", "discarded")
_LONGEST_REASON = 1000


class Report:
    """Receives the log lines of a running job in the ring `log_tail`, and passes its progress to `tell`.

    An output of more than `max_output_bytes` is not stored. `connect` lends a connection when the function
    asks for its workflow. `sender` is that of the events of the attempt, and `error` what made it fail.
    """

    def __init__(
        self,
        log_tail: log_tail.Ring | None,
        max_output_bytes: int,
        tell: Tell | None = None,
        connect: Connect | None = None,
        sender: object = None,
    ) -> None:
        self.log_tail = log_tail
        self.max_output_bytes = max_output_bytes
        self.connect = connect
        self.sender = sender
        self.error: BaseException | None = None
        self.newest: tuple[int | None, int | None, str | None] | None = None
        self._tell = tell

    def take_error(self) -> BaseException | None:
        """Return `error`, and keep it no longer: it holds all that its function knew."""
        error, self.error = self.error, None
        return error

    def progress(self, done: int | None, total: int | None, note: str | None) -> None:
        """Store the newest progress, and pass it to `tell`."""
        self.newest = (done, total, note)
        if self._tell is not None:
            self._tell(done, total, note)


# Called right before the function: returns the current claim, or the outcome when the job must not run.
Confirm = Callable[[], Claimed | Outcome]


def perform(
    tasks: Mapping[str, TaskDeclaration],
    claimed: Claimed,
    report: Report,
    confirm: Confirm | None = None,
) -> Outcome:
    """Call the function of a claimed job in this process, and return how the attempt ended. Never raises.

    `confirm` is None where nobody else can take the job. In the main thread SIGALRM enforces the job's
    `timeout`; in any other thread there is no timeout.
    """
    task = tasks.get(claimed.task)
    try:
        with log_tail.Capture(report.log_tail):
            outcome = _why_not_run(task, claimed) or _perform(
                task, claimed, report, confirm or (lambda: claimed)
            )
    except Stopped as error:
        outcome = _stopped(error)
    except BaseException as error:
        # An error in our code, or in the host's app around the job: the attempt fails, the worker continues.
        outcome = _failed("raised", task, claimed, error)
        with contextlib.suppress(Stopped):
            _tell_raised(claimed, report, outcome, error)
    tail = report.log_tail.read() if report.log_tail is not None else ""
    if tail or report.newest is not None:
        outcome = replace(outcome, log_tail=tail or None, progress=report.newest)
    return outcome


def _why_not_run(task: TaskDeclaration | None, claimed: Claimed) -> Outcome | None:
    """The outcome when the function must not be called; None when it may be called."""
    if task is None:
        error = (
            f"no task {claimed.task!r} is declared here: import the module that declares it "
            "where the app is made"
        )
        return Outcome(kind="not_run", error=error, reason=error, ended_by="unknown_task")
    # Both times are from Postgres' clock.
    if claimed.deadline_at is not None and claimed.deadline_at <= claimed.claimed_at:
        error = f"its deadline, {claimed.deadline_at.isoformat()}, had passed before it started"
        return Outcome(kind="not_run", error=error, reason=error, ended_by="deadline")
    return None


def _perform(
    task: TaskDeclaration | None, claimed: Claimed, report: Report, confirm: Confirm
) -> Outcome:
    """Call the function and its hooks, with the arguments that are stored."""
    assert task is not None
    try:
        arguments = task.arguments.load_json(claimed.args)
    except InvalidArgs as error:
        reason = _text(error)
        return Outcome(kind="not_run", error=reason, reason=reason, ended_by="invalid_args")
    with (
        log_context.log_attempt(claimed),
        Running(claimed, report.progress, report.connect) as running,
    ):
        # A request to cancel has an effect only until the function has ended.
        try:
            if (not_run := _start(task, running, report, confirm)) is not None:
                return not_run
            value = _call(task, arguments, claimed.timeout_seconds)
            _require_done(task, value)
        except BaseException as error:
            outcome = _judge(task, claimed, error)
            hook = "on_failure" if outcome.kind in _FAILURES else None
            observed: Any = error
            if hook is not None:
                with contextlib.suppress(Stopped):
                    _tell_raised(claimed, report, outcome, error)
        else:
            outcome = _returned(task, value, report)
            hook, observed = "on_success", value
        if hook is not None:
            with contextlib.suppress(Stopped):
                _observe(task, hook, running, observed)
        return outcome


def _start(
    task: TaskDeclaration, running: Running, report: Report, confirm: Confirm
) -> Outcome | None:
    """Tell that the attempt starts; the outcome when the function must not be called, else None."""
    not_run = _why_not_run_now(task, confirm)
    if not_run is not None or (task.on_start is None and not signals.attempt_started.receivers):
        return not_run
    _send(signals.attempt_started, running.claimed, report)
    _observe(task, "on_start", running)
    # Confirm again: the host's code may have taken a long time.
    return _why_not_run_now(task, confirm)


def _tell_raised(claimed: Claimed, report: Report, outcome: Outcome, error: BaseException) -> None:
    report.error = error
    _send(
        signals.attempt_raised,
        claimed,
        report,
        outcome=outcome.kind,
        is_last=outcome.kind == "discarded" or claimed.attempt >= claimed.max_attempts,
        exception=error,
    )


def _send(event: NamedSignal, claimed: Claimed, report: Report, **facts: Any) -> None:
    """Send an event of this attempt. What a receiver raises changes nothing, also when it exits."""
    try:
        signals.send(
            event,
            report.sender,
            job_id=claimed.id,
            task=claimed.task,
            queue=claimed.queue,
            attempt=claimed.attempt,
            max_attempts=claimed.max_attempts,
            **facts,
        )
    except Stopped:
        raise
    except BaseException as failed:
        signals.log_failed_receiver(event, failed)


def _why_not_run_now(task: TaskDeclaration, confirm: Confirm) -> Outcome | None:
    claimed = confirm()
    return claimed if isinstance(claimed, Outcome) else _why_not_run(task, claimed)


def _call(task: TaskDeclaration, arguments: dict[str, Any], seconds: int | None) -> Any:
    if seconds is None:
        return _call_now(task, arguments)
    limit = TimeLimit(seconds)
    try:
        with limit:
            return _call_now(task, arguments)
    finally:
        # Disarm again: the alarm may have been raised while the block was being left.
        limit.disarm()


def _call_now(task: TaskDeclaration, arguments: dict[str, Any]) -> Any:
    if task.is_async:
        return asyncio.run(task.function(**arguments))
    return task.function(**arguments)


def _require_done(task: TaskDeclaration, value: Any) -> None:
    """Raise `TypeError` when the call only made a coroutine or a generator, whose body has not run."""
    if value is None:
        return
    if inspect.isawaitable(value):
        advice = "declare the async def itself, or call asyncio.run(…) inside a plain function"
    elif inspect.isgenerator(value) or inspect.isasyncgen(value):
        advice = "loop over it inside the function, and return a value"
    else:
        return
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        # Without this, Python warns that the coroutine was never awaited.
        value.close()
    raise TypeError(
        f"task {task.name} returned an object of type {type(value).__name__}, "
        f"whose code has not run: {advice}"
    )


def _observe(task: TaskDeclaration, name: str, running: Running, *values: Any) -> None:
    """Call a hook with the job, if there is one. Its errors are logged and change nothing."""
    hook = getattr(task, name)
    if hook is None:
        return
    try:
        hook(running.job, *values)
    except Stopped:
        raise
    except BaseException as error:
        why = describe_failure(error)  # its text may be the job's
        _log.error("the hook %s of task %s raised (%s)", name, task.name, why)


def _returned(task: TaskDeclaration, value: Any, report: Report) -> Outcome:
    if not task.record_output:
        return RETURNED
    kept = dump_output(value, report.max_output_bytes)
    return Outcome(
        kind="returned",
        output=kept.value,
        output_bytes=kept.size,
        output_omitted=kept.omitted,
    )


def _judge(task: TaskDeclaration, claimed: Claimed, error: BaseException) -> Outcome:
    """The outcome for an exception that the function raised."""
    match error:
        case Stopped():
            return _stopped(error)
        case Cancel():
            return Outcome(kind="canceled", reason=_text(error.reason))
        case Discard():
            reason = _text(error.reason)
            key = _key(task, claimed, error)
            return Outcome("discarded", reason, _why(error), reason, failure_key=key)
        case EndedBy():
            reason = _text(error.reason)
            if error.ended_by == "unknown_task":
                return Outcome("not_run", reason, reason=reason, ended_by=error.ended_by)
            key = _key(task, claimed, error)
            by = error.ended_by
            return Outcome("discarded", reason, reason=reason, ended_by=by, failure_key=key)
        case Snooze() | RetryIn():
            return _again(task, claimed, error)
        case JobTimedOut():
            # Where the alarm came says little, so all time-outs of a task are one failure.
            key = failure_key.key_of_end(claimed.task, "timed_out", "timed_out")
            facts = {"limit_seconds": claimed.timeout_seconds}
            failed = _failed("timed_out", task, claimed, error)
            return replace(failed, failure_key=key, death="timed_out", death_facts=facts)
        case _:
            return _failed("raised", task, claimed, error)


def _again(task: TaskDeclaration, claimed: Claimed, error: Snooze | RetryIn) -> Outcome:
    seconds = seconds_of(error.seconds)
    if seconds is None:
        name = type(error).__name__
        wrong = ValueError(f"{name} takes seconds from 0 to 100 years, got {error.seconds!r:.100}")
        wrong.__traceback__ = error.__traceback__
        return _failed("raised", task, claimed, wrong)
    reason = _text(error.reason) or None
    if isinstance(error, Snooze):
        return Outcome(kind="snoozed", reason=reason, delay_seconds=seconds)
    sentence = reason or f"asked for another attempt in {seconds:g} s"
    key = _key(task, claimed, error)
    return Outcome("retry_in", sentence, _why(error), reason, seconds, failure_key=key)


def _failed(
    kind: str, task: TaskDeclaration | None, claimed: Claimed, error: BaseException
) -> Outcome:
    line, traceback = describe_error.describe_error(error)
    delay = retry.backoff_seconds(task, claimed.attempt)
    key = _key(task, claimed, error)
    return Outcome(kind=kind, error=line, traceback=traceback, delay_seconds=delay, failure_key=key)


def _key(task: TaskDeclaration | None, claimed: Claimed, error: BaseException) -> str:
    """The failure key of an error, or without memory or stack that of any failure of its type."""
    package = "" if task is None else host_code.package_of(task.function)
    given = None if task is None else task.failure_key
    try:
        return failure_key.key_of_error(claimed.task, error, package, given)
    except (MemoryError, RecursionError):
        return failure_key.key_of_end(claimed.task, "raised", None)


def _stopped(error: Stopped) -> Outcome:
    reason = _text(error) or "stopped while it ran"
    return Outcome(kind="canceled", error=reason, reason=reason)


def _why(error: BaseException) -> str | None:
    """The traceback of a `Discard` or `RetryIn` that another error led to; None without another error."""
    is_alone = error.__cause__ is None and error.__context__ is None
    return None if is_alone else describe_error.describe_error(error)[1]


def _text(value: object) -> str:
    return clean_text(str(value))[:_LONGEST_REASON]


@dataclass(frozen=True)
class Kept:
    """JSON text and its size in bytes; or no text, and the reason why it was omitted."""

    value: str | None
    size: int
    omitted: str | None = None


def dump_output(value: Any, max_bytes: int) -> Kept:
    """The value as JSON, or the reason: no JSON, not storable in Postgres, or more than `max_bytes`.

    Never raises.
    """
    try:
        raw = json_storage.dump(value)
        if len(raw) > max_bytes:
            limit = f"OPSJOBS_MAX_OUTPUT_BYTES = {max_bytes}"
            way_out = "store it elsewhere and return a reference to it"
            too_large = f"the result is {len(raw)} bytes as JSON, more than {limit}: {way_out}"
            return Kept(None, len(raw), too_large)
        json_storage.check_readable(raw)
    except json_storage.NotStorable as why:
        return Kept(None, 0, f"the result {why}")
    except (MemoryError, RecursionError) as error:
        return Kept(None, 0, f"the result did not become JSON: {type(error).__name__}")
    return Kept(raw.decode(), len(raw))


# The alarm repeats: a `__del__` or a bare `except` in a library may swallow the first exception.
_AGAIN_SECONDS = 5.0


class JobTimedOut(BaseException):
    """The function ran longer than its `timeout`.

    Not an `Exception`: `except Exception` must not catch it.
    """


class TimeLimit:
    """A block that raises `JobTimedOut` after some seconds. No limit with None, or outside the main thread.

    Uses SIGALRM and the real-time timer, and restores both. `disarm` may be called at any time. Code that
    catches `JobTimedOut` must call it, since the exception may be raised at the moment when the block is
    left.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._is_armed = False
        self._is_set = False
        self._started_at = 0.0
        self._handler_before: Any = None
        self._timer_before = (0.0, 0.0)

    def __enter__(self) -> TimeLimit:
        if self._seconds is None or threading.current_thread() is not threading.main_thread():
            return self
        self._started_at = time.monotonic()
        self._handler_before = signal.signal(signal.SIGALRM, self._raise)
        self._is_set = self._is_armed = True
        self._timer_before = signal.setitimer(signal.ITIMER_REAL, self._seconds, _AGAIN_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disarm()

    def disarm(self) -> None:
        """Stop the timer, and restore the handler and the timer from before the block."""
        # This comes first: from here on, an alarm raises nothing.
        self._is_armed = False
        if not self._is_set:
            return
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler_before)
        remaining, every = self._timer_before
        if remaining:
            elapsed = time.monotonic() - self._started_at
            signal.setitimer(signal.ITIMER_REAL, max(0.001, remaining - elapsed), every)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_armed:
            raise JobTimedOut(f"ran longer than {self._seconds:g} s")
