"""Computes with histograms of durations: how many lie between one power of two of milliseconds and the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

# In seconds: below 1 ms, then 1, 2, 4 ms … The last bucket begins at 2^30 ms, twelve days, and has no end.
BOUNDS: tuple[float, ...] = tuple((1 << power) / 1000 for power in range(31))


def add_histograms(histograms: Iterable[Sequence[int]]) -> list[int]:
    """All of them together; each may lack its empty end."""
    return [sum(column) for column in zip_longest(*histograms, fillvalue=0)]


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The duration in seconds below which `share` of them lie; None of an empty one.

    Right to within its bucket, a factor of two; inside it they count as evenly spread.
    """
    left = sum(histogram) * share
    for bucket, number in enumerate(histogram):
        if number and left <= number:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            return low + (high - low) * left / number
        left -= number
    return None
