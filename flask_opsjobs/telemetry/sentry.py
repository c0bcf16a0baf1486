"""Reports failed attempts to Sentry when the host has initialised `sentry_sdk`, which it does not import."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..host import ClaimedJob
from ..jobs.lifecycle import ENDED_BY
from ..jobs.perform.describe_error import from_the_function_on, message

FLUSH_SECONDS = 2.0


class SentryScope:
    """An isolation scope of Sentry around an attempt: what the host reports inside it names the job too.

    It begins with what the scope around it has.
    """

    def __init__(self, sdk: Any, job: ClaimedJob) -> None:
        self._scope = sdk.Scope
        self._before = isolation, current = (
            self._scope.get_isolation_scope(),
            self._scope.get_current_scope(),
        )
        own = isolation.fork()
        own.add_event_processor(partial(_name_job, job))
        self._set(own, current.fork())

    def _set(self, isolation: Any, current: Any) -> None:
        self._scope.set_isolation_scope(isolation)
        self._scope.set_current_scope(current)

    def leave(self) -> None:
        """Leave the scope."""
        self._set(*self._before)


_current_job: contextvars.ContextVar[ClaimedJob | None] = contextvars.ContextVar(
    "opsjobs_job_of_sentry", default=None
)


class EmptyScopes:
    """Empty scopes of Sentry for each job of a process that runs nothing else. Sentry makes them when needed.

    What the host has set in this process before, such as a tag, is moved to the global scope, since it holds
    for every job. Two forks for each job would be a good part of what a short job costs.
    """

    def __init__(self, sdk: Any) -> None:
        self.sdk, self._scope = sdk, sdk.Scope
        # Whether something was reported in this process.
        self.has_events = False
        self._job: ClaimedJob | None = None
        everywhere = self._scope.get_global_scope()
        for each in (self._scope.get_isolation_scope(), self._scope.get_current_scope()):
            everywhere.update_from_scope(each)
            if each.client.is_active():
                everywhere.set_client(each.client)
            for processor in each._event_processors:
                everywhere.add_event_processor(processor)
            for processor in each._error_processors:
                everywhere.add_error_processor(processor)
            each.clear()
        everywhere.add_event_processor(self._name_current_job)

    def begin(self, job: ClaimedJob) -> None:
        """Begin a job. Call it in a context of its own, which ends with the job."""
        self._job = job
        _current_job.set(job)
        self._scope.set_isolation_scope(None)
        self._scope.set_current_scope(None)

    def _name_current_job(self, event: Any, hint: Any) -> Any:
        self.has_events = True
        job = _current_job.get()
        if job is None and threading.current_thread() is not threading.main_thread():
            # A thread of the job that runs now: its context variables do not reach it.
            job = self._job
        return event if job is None else _name_job(job, event, hint)


def make_report(sdk: Any, error: BaseException) -> Callable[[], None]:
    """What sends this error with the scope of now, from any thread. May hang: a transport may."""
    context = contextvars.copy_context()
    return lambda: context.run(_capture, sdk, error)


def _capture(sdk: Any, error: BaseException) -> None:
    from sentry_sdk.utils import event_from_exception

    event, hint = event_from_exception(
        (type(error), error, from_the_function_on(error.__traceback__)),
        client_options=sdk.get_client().options,
        mechanism={"type": "opsjobs", "handled": False},
    )
    _leave_out_values(event, error)
    sdk.capture_event(event, hint)


def _name_job(job: ClaimedJob, event: Any, _hint: Any) -> Any:
    """Let an event name the job in which it was reported."""
    facts = {"task": job.task, "queue": job.queue, "attempt": job.attempt}
    return _name(event, facts, job_id=job.id, max_attempts=job.max_attempts)


def _name(event: Any, facts: Mapping[str, Any], **more: Any) -> Any:
    """Let an event name a job, by tags too for the facts with few values."""
    event["transaction"] = facts["task"]
    event["transaction_info"] = {"source": "task"}
    tags = {f"opsjobs.{name}": value for name, value in facts.items() if value is not None}
    event["tags"] = {**event.get("tags", {}), **tags}
    event.setdefault("contexts", {})["opsjobs"] = {**facts, **more}
    return event


_WHY = {
    "died": "its process died",
    "timed_out": "its process was killed at its time limit",
    "lost": "its worker was lost",
}


def report_failure(sdk: Any, job_id: int, facts: Mapping[str, Any]) -> None:
    """Report a job that failed without an exception, with the facts of its event. May hang."""
    why = _WHY.get(facts["outcome"]) or ENDED_BY[facts["ended_by"]]
    event = {
        "message": f"{facts['task']} failed: {why}",
        "level": "error",
        "logger": "flask_opsjobs",
        "fingerprint": ["opsjobs", facts["task"], why],
    }
    sdk.capture_event(_name(event, facts, job_id=job_id))


def flush_events(sdk: Any) -> None:
    """Send what is not yet sent. May hang."""
    sdk.get_client().flush(timeout=FLUSH_SECONDS)


def _leave_out_values(event: Any, error: BaseException) -> None:
    """Leave out the values that pydantic, SQLAlchemy and Postgres quote in their messages."""
    for found in _chain_of(error):
        raw, clean = str(found), message(found)
        if raw and raw != clean:
            for value in event["exception"]["values"]:
                value["value"] = (value.get("value") or "").replace(raw, clean)


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that led to it, also inside of groups."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        found = left.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        left += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            left += found.exceptions
