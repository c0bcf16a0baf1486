"""Asks once more, right before a function is called, whether the claim still holds after the process was frozen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ...core.db import connect_apart
from ...host import Host
from ...jobs.perform.claimed import Claimed
from ...jobs.perform.outcomes import Outcome
from .claim import claim, steady_seconds


class Confirm:
    """Called right before the function: the claim, which still holds, or how its attempt ends without a call.

    No other process may take a claim that is younger than half of `OPSJOBS_LATE_SECONDS`: its worker has to be
    missing first. An older one is made again, on a connection of its own, because a child must not use its parent's.
    When Postgres cannot be asked, the job is handed back and the attempt does not count.
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
        said = f"the function was not called: {age:.0f} s passed after the claim"
        try:
            again = self._claim_again()
        except Exception as error:
            why = f"{said}, and Postgres could not be asked again ({type(error).__name__})"
            return Outcome(kind="snoozed", error=why, reason=why)
        if not isinstance(again, Claimed):
            return Outcome(kind="lost", error=f"{said}, and the job was rescued meanwhile")
        self._claimed = again
        return again

    def _claim_again(self) -> Claimed | object:
        delivery = self._claimed.id, self._claimed.dispatch_no
        with closing(connect_apart(self._host.engine)) as connection:
            return claim(connection, delivery, *self._worker, is_retry=True)
