"""Defines an outcome that is to be written, with its fence."""

from __future__ import annotations

from typing import NamedTuple

from ..jobs.perform.outcomes import RETURNED, Outcome


class EndedAttempt(NamedTuple):
    """An outcome to write.

    `id` and `dispatch_no` are its fence: the row must still have this dispatch number. `began` and `ended`
    are when its function did so in the process `pid`, by `steady_seconds`; None when that is not known.
    `attempt` is its number.
    """

    id: int
    dispatch_no: int
    worker_id: int | None
    worker: str
    outcome: Outcome
    pid: int | None = None
    began: float | None = None
    ended: float | None = None
    attempt: int | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether the function returned, and nothing else is to be written."""
        return self.outcome is RETURNED and self.began is not None and self.ended is not None

    @property
    def seconds(self) -> float | None:
        """Return how long its function ran, if that is known."""
        return None if self.began is None or self.ended is None else self.ended - self.began
