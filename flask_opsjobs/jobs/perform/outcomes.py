"""Declares how a call may end: what a task may raise, and the value that the child sends to its parent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


class Cancel(Exception):
    """Raise in a task to end its job `canceled`, with a reason. No further attempt."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Discard(Exception):
    """Raise in a task to end its job `failed` at once, whatever attempts are left."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Exception):
    """Raise in a task to be called again in so many seconds, or after a `timedelta`. Costs no attempt."""

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = seconds
        self.reason = reason
        super().__init__(f"for {seconds} s {reason}".strip())


class RetryIn(Exception):
    """Raise in a task to fail this attempt and choose when the next is due: in seconds, or a `timedelta`."""

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        self.seconds = seconds
        self.reason = reason
        super().__init__(f"in {seconds} s {reason}".strip())


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended. Plain values only: it is sent as JSON from the child to its parent.

    `kind` is one of `lifecycle.OUTCOMES`. `delay_seconds` says when the job is due again, should it be: the backoff
    after `raised`, `timed_out` and `died`, the wish after `snoozed` and `retry_in`. `ended_by` is set when the job must
    end now whatever attempts are left (`deadline`, `unrecordable`), or once workers have refused it for ten minutes
    (`invalid_args`, `unknown_task`). `output` is JSON text, or None
    when nothing is to be kept; `output_bytes` its size before anything was left out; `output_omitted` why it was.
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
    cause: str | None = None
    max_rss_kb: int | None = None
    progress: tuple[int | None, int | None, str | None] | None = None
