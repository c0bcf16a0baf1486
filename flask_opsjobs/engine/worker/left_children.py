"""Counts why children of a worker left today, for the worker's heartbeat."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

# A heartbeat names the most frequent reasons.
_MOST_NAMED = 20


# The kind of the only reason that is usual: the child has performed as many jobs as it may.
JOBS_DONE = "jobs"


@dataclass(frozen=True)
class LeaveReason:
    """Why a child leaves.

    `kind` is one word that stays the same. `sentence` completes "the child …". `task` is the task whose job
    is to blame; None when it was a plain RQ job, or no single job.
    """

    kind: str
    sentence: str
    task: str | None = None

    @property
    def values(self) -> tuple[str, str, str | None]:
        """Return what it is made from."""
        return self.kind, self.sentence, self.task


class LeftChildren:
    """Counts by reason and task the children that left on the current day, in UTC. Safe in threads.

    >>> left = LeftChildren()
    >>> left.note([LeaveReason("thread", "left 1 thread behind: uploader", "send_mail")])
    >>> [(each["task"], each["kind"], each["count"]) for each in left.report()]
    [('send_mail', 'thread', 1)]
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day = datetime.now(UTC).date()
        self._today: dict[tuple[str | None, str], _Count] = {}

    def note(self, reasons: Iterable[LeaveReason]) -> None:
        """Note that a child has left."""
        now = datetime.now(UTC)
        with self._lock:
            self._forget_yesterday(now)
            for reason in reasons:
                key = (reason.task, reason.kind)
                before = self._today.get(key, _Count(reason.sentence, 0, now))
                self._today[key] = replace(
                    before, sentence=reason.sentence, number=before.number + 1, at=now
                )

    def report(self) -> list[dict[str, Any]]:
        """Return a JSON object for each reason: `task`, `kind`, `count`, and the last `sentence` and `at`."""
        with self._lock:
            self._forget_yesterday(datetime.now(UTC))
            found = sorted(self._today.items(), key=lambda item: item[1].number, reverse=True)
        return [
            {
                "task": task,
                "kind": kind,
                "sentence": count.sentence,
                "count": count.number,
                "at": count.at.isoformat(timespec="seconds"),
            }
            for (task, kind), count in found[:_MOST_NAMED]
        ]

    def _forget_yesterday(self, now: datetime) -> None:
        if now.date() != self._day:
            self._day = now.date()
            self._today.clear()


@dataclass(frozen=True)
class _Count:
    sentence: str
    number: int
    at: datetime
