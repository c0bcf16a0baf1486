"""Computes how long a failed job waits before its next attempt."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import Protocol

from ...policy import describe_failure
from ..record.declaration import TaskDeclaration
from ..record.options import seconds_of

_log = logging.getLogger("flask_opsjobs.jobs")

BASE_SECONDS = 15.0
MOST_SECONDS = 3600.0
# When workers do not know a job's task or reject its arguments, the job is tried again for this long after
# the first hand-back. During a deploy, workers with older code meet jobs of newer code.
HAND_BACK_FOR = timedelta(minutes=10)


class Dice(Protocol):
    """A source of random numbers: the module `random`, or a seeded `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...


def backoff_seconds(task: TaskDeclaration | None, attempt: int, dice: Dice = random) -> float:
    """Seconds to wait after the failure of this attempt (from 1): by the task's `backoff`, or the default.

    When the task's `backoff` raises or returns something that is not a duration, logs that and takes the
    default.
    """
    if task is None or task.backoff is None:
        return default_seconds(attempt, dice)
    try:
        answer = task.backoff(attempt) if callable(task.backoff) else task.backoff
    except Exception as error:
        why = describe_failure(error)
        _log.error("the backoff of task %s raised (%s); the default is taken", task.name, why)
        return default_seconds(attempt, dice)
    seconds = seconds_of(answer)
    if seconds is None:
        _log.error(
            "the backoff of task %s is a %s, not a number of seconds from 0 to 100 years; "
            "the default is taken",
            task.name,
            type(answer).__name__,
        )
        return default_seconds(attempt, dice)
    return seconds


def default_seconds(attempt: int, dice: Dice = random) -> float:
    """Exponential backoff with jitter: 15 s, doubled by each attempt up to an hour; one half of it is random.

    This is "equal jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. "Full
    jitter" spreads the load a little better, but may wait almost no time, which does not help a service that
    just failed.
    """
    # Cap the exponent too: 2.0 ** 1024 overflows.
    most = min(MOST_SECONDS, BASE_SECONDS * 2.0 ** min(max(attempt - 1, 0), 32))
    return most / 2 + most / 2 * dice.random()
