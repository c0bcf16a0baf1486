"""Histograms of durations: sums, and quantiles that lie in the right bucket."""

from __future__ import annotations

import pytest

from flask_opsjobs.overview.pace_queries import BOUNDS, add_histograms, quantile


def test_histograms_add_up_whatever_their_lengths() -> None:
    assert add_histograms([[1, 2], [], [0, 0, 5]]) == [1, 2, 5]
    assert add_histograms([]) == []


def test_nothing_has_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([0, 0], 0.5) is None


def test_a_quantile_lies_in_its_bucket() -> None:
    # 90 below a millisecond, 10 from 8 to 16 ms.
    histogram = [90, 0, 0, 0, 10]
    assert quantile(histogram, 0.5) == pytest.approx(0.0005, rel=0.2)
    assert quantile(histogram, 0.95) == pytest.approx(0.012)
    assert quantile(histogram, 1.0) == 0.016


def test_the_last_bucket_has_no_end() -> None:
    histogram = [0] * len(BOUNDS) + [1]
    assert quantile(histogram, 0.5) == BOUNDS[-1]
