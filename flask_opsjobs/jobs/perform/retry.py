"""Computes how long a failed job waits before its next attempt."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from ..record.durations import seconds_of

if TYPE_CHECKING:
    from ..record.task import Task

_log = logging.getLogger("flask_opsjobs.jobs")

BASE_SECONDS = 15.0
MOST_SECONDS = 3600.0
# So long from its first refusal on, a job is tried again whose task, or whose arguments, workers refuse: during a
# deploy, workers of the older code meet jobs of the newer code.
REFUSED_FOR = timedelta(minutes=10)


class Dice(Protocol):
    """Where chance comes from: the module `random`, or a seeded `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...


def backoff_seconds(task: Task | None, attempt: int, dice: Dice = random) -> float:
    """The wait after the failure of this attempt, counted from 1, as the task declares it or by default.

    A task's function that raises, or answers with what is no duration, is logged and the default is taken.
    """
    if task is None or task.backoff is None:
        return default_seconds(attempt, dice)
    try:
        answer = task.backoff(attempt) if callable(task.backoff) else task.backoff
    except Exception:
        _log.exception("the backoff of task %s raised; the default is taken", task.name)
        return default_seconds(attempt, dice)
    seconds = seconds_of(answer)
    if seconds is None:
        _log.error(
            "the backoff of task %s is a %s that is no number of seconds from 0 to 100 years; "
            "the default is taken",
            task.name,
            type(answer).__name__,
        )
        return default_seconds(attempt, dice)
    return seconds


def default_seconds(attempt: int, dice: Dice = random) -> float:
    """Exponential with jitter: 15 s, doubled by each attempt up to an hour, of which one half is left to chance.

    This is "equal jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: "full jitter"
    spreads a little better, but its wait may be next to nothing, which a service that just failed does not need.
    """
    # The exponent is capped too: 2.0 ** 1024 overflows.
    most = min(MOST_SECONDS, BASE_SECONDS * 2.0 ** min(max(attempt - 1, 0), 32))
    return most / 2 + most / 2 * dice.random()
