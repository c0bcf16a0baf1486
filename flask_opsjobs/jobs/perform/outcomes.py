"""Declares how an attempt may end: exceptions that a task may raise, and the outcome that a child sends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any


class Cancel(Exception):
    """Raise in a task to end its job as `canceled`, with a reason and without further attempts.

    >>> @opsjobs.task
    ... def ship(order_id: int) -> None:
    ...     raise Cancel("the order was withdrawn")
    >>> job = ship.enqueue(7)
    >>> db.session.commit()
    >>> perform_due(limit=1).jobs[0].state
    'canceled'
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Discard(Exception):
    """Raise in a task to end its job as `failed` at once, even when attempts are left.

    >>> @opsjobs.task
    ... def ship(order_id: int) -> None:
    ...     raise Discard("the address does not exist")
    >>> job = ship.enqueue(7)
    >>> db.session.commit()
    >>> perform_due(limit=1).jobs[0].state
    'failed'
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Exception):
    """Raise in a task to be called again after a number of seconds or a `timedelta`. Costs no attempt.

    >>> @opsjobs.task
    ... def ship(order_id: int) -> None:
    ...     raise Snooze(timedelta(minutes=5), "the stock is being counted")
    >>> job = ship.enqueue(7)
    >>> db.session.commit()
    >>> perform_due(limit=1).jobs[0].state
    'scheduled'
    """

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = seconds
        self.reason = reason
        super().__init__(f"for {seconds} s {reason}".strip())


class RetryIn(Exception):
    """Raise in a task to fail this attempt and set the wait before the next: seconds or a `timedelta`.

    >>> @opsjobs.task
    ... def ship(order_id: int) -> None:
    ...     raise RetryIn(30, "the carrier is busy")
    >>> job = ship.enqueue(7)
    >>> db.session.commit()
    >>> perform_due(limit=1).jobs[0].state
    'retryable'
    """

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = seconds
        self.reason = reason
        super().__init__(f"in {seconds} s {reason}".strip())


class EndedBy(Exception):
    """Raised in a built-in task to end its job as `failed` at once, with this `ended_by` and reason.

    `unknown_task` is different: other workers may have the task, so the job is handed back to them.
    """

    def __init__(self, ended_by: str, reason: str) -> None:
        self.ended_by = ended_by
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended. Holds plain values only: the child sends it to its parent as JSON.

    `kind` is one of `lifecycle.OUTCOMES`. `delay_seconds` is the wait before the job is due again, if it is:
    the backoff after `raised`, `timed_out` and `died`, the requested wait after `snoozed` and `retry_in`.
    `ended_by` is set when the job must end now, even when attempts are left (`deadline`, `unrecordable`), or
    when it must end after workers handed it back for ten minutes (`invalid_args`, `unknown_task`). `output`
    is JSON text, or None when nothing is stored; `output_bytes` is the size of the full JSON;
    `output_omitted` is why it is not stored. `failure_key` groups failures, `death` is one of
    `lifecycle.DEATHS`, and `death_facts` are what is known of it.
    """

    kind: str
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    delay_seconds: float = 0.0
    ended_by: str | None = None
    output: str | None = None
    output_bytes: int = 0
    output_omitted: str | None = None
    log_tail: str | None = None
    cause_of_death: str | None = None
    death: str | None = None
    death_facts: dict[str, Any] | None = None
    failure_key: str | None = None
    max_rss_kb: int | None = None
    progress: tuple[int | None, int | None, str | None] | None = None


# The outcome of a function that returned and left nothing to store. Most outcomes are this one object.
RETURNED = Outcome("returned")
