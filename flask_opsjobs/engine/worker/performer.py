"""Declares what an OpsWorker needs of its performer, which runs a claimed job in a child or in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...jobs.perform.claimed import Claimed
from ...jobs.perform.outcomes import Outcome


class Performer(Protocol):
    """Runs one claimed job at a time."""

    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Run the job; return how its attempt ended. A performer that is free calls `tick` while the job runs."""
        ...

    def backoff_seconds(self, claimed: Claimed) -> float:
        """In how many seconds a job is due again that could not be started."""
        ...

    def stop_now(self, why: str) -> None:
        """Stop the job that runs, if there is one; `why` becomes the cause of its end."""
        ...
