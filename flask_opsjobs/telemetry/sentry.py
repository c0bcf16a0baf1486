"""Reports failed attempts to Sentry when the host has initialised `sentry_sdk`, which it does not import."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from ..host import ClaimedJob
from ..jobs.lifecycle import ENDED_BY
from ..jobs.perform.describe_error import from_the_function_on, message

FLUSH_SECONDS = 2.0


class SentryScope:
    """An isolation scope of Sentry around an attempt: what the host reports inside it names the job too."""

    def __init__(self, sdk: Any, job: ClaimedJob) -> None:
        self._sdk, self._scope = sdk, sdk.Scope
        self._before = isolation, current = (
            self._scope.get_isolation_scope(),
            self._scope.get_current_scope(),
        )
        fork = _lazy_fork_of(self._scope)
        self._set(fork(isolation, partial(_name_job, job)), fork(current))

    def _set(self, isolation: Any, current: Any) -> None:
        self._scope.set_isolation_scope(isolation)
        self._scope.set_current_scope(current)

    def leave(self) -> None:
        """Leave the scope."""
        self._set(*self._before)

    def make_report(self, error: BaseException) -> Callable[[], None]:
        """What sends this error with the scope of now, from any thread. May hang: a transport may."""
        context = contextvars.copy_context()
        return lambda: context.run(self._capture, error)

    def _capture(self, error: BaseException) -> None:
        from sentry_sdk.utils import event_from_exception

        event, hint = event_from_exception(
            (type(error), error, from_the_function_on(error.__traceback__)),
            client_options=self._sdk.get_client().options,
            mechanism={"type": "opsjobs", "handled": False},
        )
        _leave_out_values(event, error)
        self._sdk.capture_event(event, hint)


@cache
def _lazy_fork_of(scope: Any) -> Any:
    """A subclass of Sentry's `Scope`: a fork that is made when somebody reads what nobody has written to it.

    Most jobs have nothing to report, and two forks are a good part of what such a job costs its process.
    """

    class LazyFork(scope):  # type: ignore[misc]
        def __init__(self, origin: Any, processor: Callable[..., Any] | None = None) -> None:
            self.origin, self.processor = origin, processor

        def __getattr__(self, name: str) -> Any:
            # Python comes here for an attribute without a value. A copy of this scope has no origin.
            if "origin" not in self.__dict__:
                raise AttributeError(name)
            fork = self.origin.fork()
            if self.processor is not None:
                fork.add_event_processor(self.processor)
            for each in scope.__slots__:
                if not _has(self, each):
                    setattr(self, each, getattr(fork, each))
            return object.__getattribute__(self, name)

    return LazyFork


def _has(scope: Any, name: str) -> bool:
    """Whether an attribute of a scope has a value."""
    try:
        object.__getattribute__(scope, name)
    except AttributeError:
        return False
    return True


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
