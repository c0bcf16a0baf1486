"""Reports failed attempts to Sentry when the host has initialised `sentry_sdk`, which it does not import."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..host import ClaimedJob
from ..jobs.perform.describe_error import from_the_function_on, message

FLUSH_SECONDS = 2.0


class SentryScope:
    """An isolation scope of Sentry around an attempt: what the host reports inside it names the job too."""

    def __init__(self, sdk: Any, job: ClaimedJob) -> None:
        self._sdk = sdk
        self._block: AbstractContextManager[Any] = sdk.isolation_scope()
        # Most jobs report nothing: what names the job is made only for an event.
        self._block.__enter__().add_event_processor(partial(_name_job, job))

    def leave(self) -> None:
        """Leave the scope."""
        self._block.__exit__(None, None, None)

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


def _name_job(job: ClaimedJob, event: Any, _hint: Any) -> Any:
    """Let an event name the job in which it was reported."""
    event["transaction"] = job.task
    event["transaction_info"] = {"source": "task"}
    event["tags"] = {
        **event.get("tags", {}),
        "opsjobs.task": job.task,
        "opsjobs.queue": job.queue,
        "opsjobs.attempt": job.attempt,
    }
    event.setdefault("contexts", {})["opsjobs"] = {
        "job_id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
    }
    return event


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
