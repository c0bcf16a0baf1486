"""Decides how far an operation may go: its stages, when it stops, and what its rate allows. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

# Their jobs become due, so live jobs of the same queue must not wait for them, and they are proven by the
# next attempt of each.
MAKES_DUE = ("job.retry", "job.run_again", "job.rescue")
# The codes of pauses that only a person ends.
LASTING = ("operator", "unproven")
# How many rows the stages have: the last one has the rest.
SIZES = (1, 10, 100)
# So many rows that fail as before stop an operation in its first two stages; then this share of the last.
_MOST_SAME = {1: 1, 2: 2}
_SHARE_SAME = 0.1
# So many attempts are the last ones.
MOST_RECENT = 200
# So many rows whose jobs had changed, and this share of all that were handled, stop it too.
_FEWEST_DRIFTED = 5
_SHARE_DRIFTED = 0.2
# A stage that is not proven after this time pauses the operation.
PROOF_SPAN = timedelta(minutes=10)
_SECOND = timedelta(seconds=1)


def bounds_of_stage(stage: int, begun_after: int, targets: int) -> tuple[int, int]:
    """The rows of a stage: above the first number, up to the second.

    >>> [bounds_of_stage(stage, 0, 640) for stage in (1, 2, 3, 4)]
    [(0, 1), (1, 11), (11, 111), (111, 640)]
    """
    low = begun_after + sum(SIZES[: stage - 1])
    high = low + SIZES[stage - 1] if stage <= len(SIZES) else targets
    return min(low, targets), min(high, targets)


def is_same_failure_back(stage: int, same_in_stage: int, recent: int, same_in_recent: int) -> bool:
    """Whether so many retried jobs failed as before that the operation stops.

    >>> is_same_failure_back(1, 1, 1, 1), is_same_failure_back(2, 1, 2, 1), is_same_failure_back(3, 0, 79, 4)
    (True, False, False)
    """
    if stage in _MOST_SAME:
        return same_in_stage >= _MOST_SAME[stage]
    return same_in_recent > 0 and same_in_recent >= _SHARE_SAME * recent


def is_drifting(drifted: int, handled: int) -> bool:
    """Whether so many jobs had changed since they were frozen that the operation stops.

    >>> is_drifting(4, 4), is_drifting(5, 25), is_drifting(5, 26)
    (False, True, False)
    """
    return drifted >= _FEWEST_DRIFTED and drifted >= _SHARE_DRIFTED * handled


def find_turns(rate: int | None, paced_at: datetime | None, now: datetime, most: int) -> int:
    """How many rows the rate allows now, at most `most`. What was not used is kept for a tenth of a second.

    >>> at = datetime(2026, 11, 27)
    >>> find_turns(100, at - timedelta(seconds=0.05), at, 200), find_turns(1, None, at, 200)
    (5, 1)
    """
    if rate is None:
        return most
    return max(0, min(most, int((now - _begin(rate, paced_at, now)) / _SECOND * rate + 1e-6)))


def find_paced_at(
    rate: int | None, paced_at: datetime | None, now: datetime, turns: int
) -> datetime | None:
    """Up to when the rate has given turns, after so many more; None without a rate."""
    return None if rate is None else _begin(rate, paced_at, now) + turns / rate * _SECOND


def _begin(rate: int, paced_at: datetime | None, now: datetime) -> datetime:
    kept = now - max(0.1, 1 / rate) * _SECOND
    return kept if paced_at is None else max(paced_at, kept)
