"""Performs a claimed job: calls its function and turns every end of the call into an outcome."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgs
from ..record.durations import seconds_of
from ..record.json_storage import clean_text
from . import failure, log_tail, outputs, retry
from .claimed import Claimed
from .current import CurrentJob, Stopped, Tell, running
from .outcomes import Cancel, Discard, Outcome, RetryIn, Snooze
from .time_limit import JobTimedOut, TimeLimit

if TYPE_CHECKING:
    from ..record.task import Task

_log = logging.getLogger("flask_opsjobs.jobs")

_FAILURES = ("raised", "timed_out", "retry_in", "discarded")
_LONGEST_REASON = 1000


class Report:
    """What a running job says: its log lines go to the ring `log_tail` if there is one, its progress to `tell`."""

    def __init__(self, log_tail: log_tail.Ring | None, tell: Tell | None = None) -> None:
        self.log_tail = log_tail
        self.newest: tuple[int | None, int | None, str | None] | None = None
        self._tell = tell

    def progress(self, done: int | None, total: int | None, note: str | None) -> None:
        """Keep how far the job is, and tell it."""
        self.newest = (done, total, note)
        if self._tell is not None:
            self._tell(done, total, note)


# Asked right before the function is called: the claim as it stands now, or how the attempt ends without a call.
Confirm = Callable[[], Claimed | Outcome]


def perform(
    tasks: Mapping[str, Task],
    claimed: Claimed,
    report: Report,
    confirm: Confirm | None = None,
) -> Outcome:
    """Call the function of a claimed job, here; how it ended. Never raises, whatever the function does.

    `confirm` is None where nobody else can take the job. In the main thread the task's `timeout` is kept by SIGALRM;
    elsewhere there is none.
    """
    task = tasks.get(claimed.task)
    try:
        with log_tail.capture(report.log_tail):
            outcome = _refuse(task, claimed) or _perform(
                task, claimed, report, confirm or (lambda: claimed)
            )
    except Stopped as error:
        outcome = _stopped(error)
    except BaseException as error:
        # Ours, or the host's app around the job: the attempt fails, the worker lives.
        outcome = _failed("raised", task, claimed, error)
    tail = report.log_tail.read() if report.log_tail is not None else None
    return replace(outcome, log_tail=tail or None, progress=report.newest)


def _refuse(task: Task | None, claimed: Claimed) -> Outcome | None:
    """Why the function is not to be called at all; None when it is."""
    if task is None:
        error = (
            f"no task {claimed.task!r} is declared here: import the module that declares it "
            "where the app is made"
        )
        return Outcome(kind="refused", error=error, reason=error, ended_by="unknown_task")
    # By Postgres' clock, both of them.
    if claimed.deadline_at is not None and claimed.deadline_at <= claimed.claimed_at:
        error = f"its deadline, {claimed.deadline_at.isoformat()}, had passed before it started"
        return Outcome(kind="refused", error=error, reason=error, ended_by="deadline")
    return None


def _perform(task: Task | None, claimed: Claimed, report: Report, confirm: Confirm) -> Outcome:
    assert task is not None
    try:
        arguments = task.arguments.load(claimed.args)
    except InvalidArgs as error:
        said = _text(error)
        return Outcome(kind="refused", error=said, reason=said, ended_by="invalid_args")
    with running(claimed, report.progress) as job:
        return _run(task, claimed, job, arguments, confirm)


def _run(
    task: Task,
    claimed: Claimed,
    job: CurrentJob,
    arguments: dict[str, Any],
    confirm: Confirm,
) -> Outcome:
    """Call the hooks and the function. A wish to stop counts until the function has ended, and not after."""
    try:
        if (refused := _refuse_now(task, confirm)) is not None:
            return refused
        _observe(task, "on_start", job)
        # Once more: the hook is the host's, and may have taken its time.
        if (refused := _refuse_now(task, confirm)) is not None:
            return refused
        value = _call(task, arguments, claimed.timeout_seconds)
        _require_done(task, value)
    except BaseException as error:
        outcome = _judge(task, claimed, error)
        hook = "on_failure" if outcome.kind in _FAILURES else None
        seen: Any = error
    else:
        outcome = _returned(task, value)
        hook, seen = "on_success", value
    if hook is not None:
        with contextlib.suppress(Stopped):
            _observe(task, hook, job, seen)
    return outcome


def _refuse_now(task: Task, confirm: Confirm) -> Outcome | None:
    claimed = confirm()
    return claimed if isinstance(claimed, Outcome) else _refuse(task, claimed)


def _call(task: Task, arguments: dict[str, Any], seconds: int | None) -> Any:
    limit = TimeLimit(seconds)
    try:
        with limit:
            return task.function(**arguments)
    finally:
        # Once more: the alarm may have been raised while the block was being left.
        limit.disarm()


def _require_done(task: Task, value: Any) -> None:
    """Raise `TypeError` when the call only made a coroutine or a generator, whose body has not run."""
    if inspect.isawaitable(value):
        advice = "call asyncio.run(…) inside a plain function"
    elif inspect.isgenerator(value) or inspect.isasyncgen(value):
        advice = "loop over it inside the function, and return a value"
    else:
        return
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        # Otherwise Python warns that it was never awaited.
        value.close()
    raise TypeError(
        f"task {task.name} returned an object of type {type(value).__name__}, "
        f"whose code has not run: {advice}"
    )


def _observe(task: Task, name: str, *seen: Any) -> None:
    """Call a hook, if there is one. What it raises is logged and changes nothing."""
    hook = getattr(task, name)
    if hook is None:
        return
    try:
        hook(*seen)
    except Stopped:
        raise
    except BaseException:
        _log.exception("the hook %s of task %s raised", name, task.name)


def _returned(task: Task, value: Any) -> Outcome:
    if not task.record_output:
        return Outcome(kind="returned")
    kept = outputs.dump_output(value, task.host().settings.max_output_bytes)
    return Outcome(
        kind="returned",
        output=kept.value,
        output_bytes=kept.size,
        output_omitted=kept.omitted,
    )


def _judge(task: Task, claimed: Claimed, error: BaseException) -> Outcome:
    """What an exception means that came out of the function."""
    match error:
        case Stopped():
            return _stopped(error)
        case Cancel():
            return Outcome(kind="canceled", reason=_text(error.reason))
        case Discard():
            reason = _text(error.reason)
            return Outcome("discarded", reason, _why(error), reason)
        case Snooze() | RetryIn():
            return _again(task, claimed, error)
        case JobTimedOut():
            return _failed("timed_out", task, claimed, error)
        case _:
            return _failed("raised", task, claimed, error)


def _again(task: Task, claimed: Claimed, error: Snooze | RetryIn) -> Outcome:
    seconds = seconds_of(error.seconds)
    if seconds is None:
        name = type(error).__name__
        wrong = ValueError(f"{name} takes seconds from 0 to 100 years, got {error.seconds!r:.100}")
        wrong.__traceback__ = error.__traceback__
        return _failed("raised", task, claimed, wrong)
    reason = _text(error.reason) or None
    if isinstance(error, Snooze):
        return Outcome(kind="snoozed", reason=reason, delay_seconds=seconds)
    said = reason or f"asked for another attempt in {seconds:g} s"
    return Outcome("retry_in", said, _why(error), reason, seconds)


def _failed(kind: str, task: Task | None, claimed: Claimed, error: BaseException) -> Outcome:
    said, traceback = failure.describe_error(error)
    delay = retry.backoff_seconds(task, claimed.attempt)
    return Outcome(kind=kind, error=said, traceback=traceback, delay_seconds=delay)


def _stopped(error: Stopped) -> Outcome:
    said = _text(error) or "stopped while it ran"
    return Outcome(kind="canceled", error=said, reason=said)


def _why(error: BaseException) -> str | None:
    """The traceback of a decision that another error led to; a decision alone needs none."""
    is_alone = error.__cause__ is None and error.__context__ is None
    return None if is_alone else failure.describe_error(error)[1]


def _text(value: object) -> str:
    return clean_text(str(value))[:_LONGEST_REASON]
