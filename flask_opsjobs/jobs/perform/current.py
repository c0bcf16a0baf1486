"""Holds a claimed job and its fencing token, gives the running function its job, and passes progress on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from ...core.db import Connection
from ...errors import OpsJobsError
from ...host import Connect
from ...policy import describe_failure
from ..record.json_storage import clean_text
from . import current_queries
from .current_queries import CurrentBatch, CurrentWorkflow


class Claimed(NamedTuple):
    """The claimed job. `attempt` counts from 1.

    Every later write of this attempt names its `dispatch_no` (a fencing token): it changes nothing once the
    job has another number. The job starts `wait_seconds` after the claim, when its limiter's token becomes
    available. `args` is JSON text.
    `asked_at` is when this process sent the claim, by the engine's own clock: it tells how old the claim is.
    """

    id: int
    dispatch_no: int
    task: str
    queue: str
    args: str
    meta: dict[str, Any]
    tags: list[str]
    attempt: int
    max_attempts: int
    timeout_seconds: int | None
    deadline_at: datetime | None
    created_at: datetime
    claimed_at: datetime
    wait_seconds: float = 0.0
    asked_at: float = 0.0


_log = logging.getLogger("flask_opsjobs.jobs")

Progress = tuple[int, int | None, str | None]
Tell = Callable[[int | None, int | None, str | None], None]

# A loop may report progress a million times; ten reports a second are enough for a reader.
_EVERY_SECONDS = 0.1
_LONGEST_NOTE = 500


class Stopped(BaseException):
    """Raised in a running function to stop its job.

    Not an `Exception`: `except Exception` must not catch it.
    """


@dataclass(frozen=True)
class CurrentJob:
    """The running job, with the values of its claim. `attempt` counts from 1."""

    id: int
    attempt: int
    max_attempts: int
    task: str
    queue: str
    meta: Mapping[str, Any]
    tags: tuple[str, ...]
    created_at: datetime
    deadline_at: datetime | None
    # The fence: who still has this delivery may write for the job.
    _dispatch_no: int = field(repr=False, compare=False)
    _teller: Teller = field(repr=False, compare=False)
    _connect: Connect | None = field(repr=False, compare=False)

    @cached_property
    def workflow(self) -> CurrentWorkflow | None:
        """The run that the job is a step of: its `id`, `name`, `context` and the name of the `step`.

        None when the job is no step. It is read from the database when it is first asked for.

        >>> @opsjobs.task(record_output=True)
        ... def greet() -> str:
        ...     return current_job().workflow.context["greeting"]
        >>> flow = opsjobs.workflow("welcome", context={"greeting": "hello"})
        >>> step = flow.step("greet", greet)
        >>> run = flow.start()
        >>> db.session.commit()
        >>> perform_due().jobs[0].output
        'hello'
        """
        with self._connected("workflow") as connection:
            return current_queries.find_workflow(connection, self.id)

    @cached_property
    def batch(self) -> CurrentBatch | None:
        """The batch that the job is a member of: its `id`, `name` and `meta`.

        None when the job is no member of a batch. It is read from the database when it is first asked for.

        >>> @opsjobs.task(record_output=True)
        ... def tell_month() -> str:
        ...     return current_job().batch.meta["month"]
        >>> with opsjobs.batch("months", meta={"month": "2026-03"}) as batch:
        ...     job = batch.enqueue(tell_month)
        >>> db.session.commit()
        >>> perform_due().jobs[0].output
        '2026-03'
        """
        with self._connected("batch") as connection:
            return current_queries.find_own_batch(connection, self.id)

    def _connected(self, what: str) -> AbstractContextManager[Connection]:
        if self._connect is None:
            raise OpsJobsError(
                f"the job runs without a database: it cannot be asked for its {what}"
            )
        return self._connect()

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """Report progress: `done` of `total`, and a note of at most 500 characters.

        Costs little: passes on at most ten reports a second, and always the last. Raises `ValueError` when a
        number is not whole or is below 0. When a report cannot be passed on, the error is logged and the job
        continues.

        >>> @opsjobs.task
        ... def import_rows(count: int) -> None:
        ...     for number in range(count):
        ...         current_job().progress(number + 1, count, "rows")
        >>> job = import_rows.enqueue(3)
        >>> db.session.commit()
        >>> perform_due().counts
        {'finished': 1}
        """
        self._teller.tell((_count("done", done), _count("total", total), _short(note)))


class Teller:
    """Passes on the newest progress, at most once in 0.1 s."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._held: Progress | None = None
        self._next_at = 0.0

    def tell(self, progress: Progress) -> None:
        """Pass the progress on, or hold it until the next report or the end of the job."""
        self._held = progress
        if time.monotonic() >= self._next_at:
            self.tell_held()

    def tell_held(self) -> None:
        """Pass on the held progress, if there is any."""
        held, self._held = self._held, None
        if held is None:
            return
        self._next_at = time.monotonic() + _EVERY_SECONDS
        try:
            self._tell(*held)
        except Exception as error:
            # Without a traceback: the job may tell of its progress while it handles an error of its own.
            _log.error(
                "the progress of the job could not be passed on (%s)", describe_failure(error)
            )


def current_delivery() -> tuple[int, int]:
    """The delivery of the job that is running here: (job id, dispatch number)."""
    job = current_job()
    return job.id, job._dispatch_no


def current_job() -> CurrentJob:
    """The job whose function is running here.

    Raises `OpsJobsError` elsewhere, also in a thread started by a job.

    >>> @opsjobs.task(record_output=True)
    ... def tell_attempt() -> int:
    ...     return current_job().attempt
    >>> job = tell_attempt.enqueue()
    >>> db.session.commit()
    >>> perform_due().jobs[0].output
    1
    """
    try:
        return _running.get().job
    except LookupError:
        raise OpsJobsError(
            "no job is running here: current_job() is for code that a job's function calls, in its own thread"
        ) from None


def find_claimed() -> Claimed | None:
    """Return the job whose function is running here, as it was claimed; None elsewhere."""
    running = _running.get(None)
    return None if running is None else running.claimed


class Running:
    """A block in which `current_job()` returns the claimed job. Passes on its held progress at the end.

    Most functions never ask for their job, so it is made when it is first asked for.
    """

    __slots__ = ("_connect", "_job", "_tell", "_token", "claimed")

    def __init__(self, claimed: Claimed, tell: Tell, connect: Connect | None = None) -> None:
        self.claimed = claimed
        self._tell = tell
        self._connect = connect
        self._job: CurrentJob | None = None

    def __enter__(self) -> Running:
        self._token = _running.set(self)
        return self

    def __exit__(self, *_error: object) -> None:
        _running.reset(self._token)
        if self._job is not None:
            self._job._teller.tell_held()

    @property
    def job(self) -> CurrentJob:
        """The job."""
        if self._job is None:
            claimed = self.claimed
            self._job = CurrentJob(
                id=claimed.id,
                attempt=claimed.attempt,
                max_attempts=claimed.max_attempts,
                task=claimed.task,
                queue=claimed.queue,
                meta=claimed.meta,
                tags=tuple(claimed.tags),
                created_at=claimed.created_at,
                deadline_at=claimed.deadline_at,
                _dispatch_no=claimed.dispatch_no,
                _teller=Teller(self._tell),
                _connect=self._connect,
            )
        return self._job


_running: ContextVar[Running] = ContextVar("opsjobs_current_job")


def _count(name: str, value: int | None) -> Any:
    if value is None and name == "total":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"progress: {name} must be a whole number, 0 or more")
    return value


def _short(note: str | None) -> str | None:
    return None if note is None else clean_text(str(note))[:_LONGEST_NOTE]
