"""Declares the interface of a performer, which runs a claimed job in a child or in the worker itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome


class Performer(Protocol):
    """Runs one claimed job at a time."""

    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Run the job and return the outcome.

        A performer that is not busy calls `tick` while the job runs.
        """
        ...

    def backoff_seconds(self, claimed: Claimed) -> float:
        """Return in how many seconds a job that could not be started is due again."""
        ...

    def stop_now(self, why: str) -> None:
        """Stop the running job, if there is one; `why` becomes the cause of its end."""
        ...
