"""Adds histograms of durations and finds quantiles. Each bucket ends at a power of two of milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

# In seconds: 1, 2, 4 ms … The first bucket is below 1 ms; the last begins at 2^30 ms (twelve days) and has no
# end.
BOUNDS: tuple[float, ...] = tuple((1 << power) / 1000 for power in range(31))


def add_histograms(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of the histograms. Each may be shorter when its last buckets are empty."""
    return [sum(column) for column in zip_longest(*histograms, fillvalue=0)]


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The duration in seconds below which `share` of all durations lie; None when the histogram is empty.

    It is exact to its bucket, a factor of two. Inside a bucket the durations are taken as evenly spread.
    """
    left = sum(histogram) * share
    for bucket, number in enumerate(histogram):
        if number and left <= number:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            return low + (high - low) * left / number
        left -= number
    return None
