"""Checks right before a function is called that its claim still holds: the process may have been frozen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ...core.db import connect_apart
from ...host import Host
from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome
from .claim import claim, steady_seconds


class Confirm:
    """Called right before the function.

    Returns the claim when it still holds, else the outcome of the attempt.

    A claim younger than half of `OPSJOBS_LATE_SECONDS` holds, because its job is rescued only after its
    worker went missing. An older claim is made again, on a connection of its own: a child must not use its
    parent's. When Postgres cannot be asked, the job is handed back and the attempt does not count.
    """

    def __init__(
        self,
        host: Host,
        claimed: Claimed,
        worker_id: int,
        worker: str,
        *,
        seconds: Callable[[], float] = steady_seconds,
    ) -> None:
        self._host = host
        self._claimed = claimed
        self._worker = worker_id, worker
        self._seconds = seconds

    def __call__(self) -> Claimed | Outcome:
        age = self._seconds() - self._claimed.asked_at
        if age <= self._host.settings.late_seconds / 2:
            return self._claimed
        late = f"the function was not called: {age:.0f} s passed after the claim"
        try:
            again = self._claim_again()
        except Exception as error:
            why = f"{late}, and Postgres could not be asked again ({type(error).__name__})"
            return Outcome(kind="snoozed", error=why, reason=why)
        if not isinstance(again, Claimed):
            return Outcome(kind="lost", error=f"{late}, and the job was rescued meanwhile")
        self._claimed = again
        return again

    def _claim_again(self) -> Claimed | object:
        delivery = self._claimed.id, self._claimed.dispatch_no
        with closing(connect_apart(self._host.engine)) as connection:
            return claim(connection, delivery, *self._worker, is_retry=True)
