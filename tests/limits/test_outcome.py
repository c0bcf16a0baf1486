"""The numbers of a simulation: the same percentiles as anybody counts by hand, and none of nothing."""

from __future__ import annotations

import pytest

from flask_opsjobs.limits.bucket import Shape
from flask_opsjobs.limits.simulation import SimulatedJob, make_outcome, simulate


@pytest.mark.parametrize(
    ("count", "half", "p95", "last"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (20, 10, 19, 20), (100, 50, 95, 100), (101, 51, 96, 101)],
)
def test_jobs_that_come_at_once_wait_as_long_as_they_take_to_start(
    count: int, half: int, p95: int, last: int
) -> None:
    found = make_outcome(simulate(Shape(concurrency=1), [SimulatedJob(0)] * count, run_seconds=1))
    # The n-th starts when n - 1 have ended.
    assert (found.first, found.half, found.last) == (0, half - 1, last - 1)
    assert (found.wait_median, found.wait_p95, found.wait_most) == (half - 1, p95 - 1, last - 1)
    assert (found.started, found.ended, found.most_at_once) == (count, count, 1)


def test_where_nothing_starts_there_is_no_time() -> None:
    found = make_outcome(simulate(Shape(concurrency=1), [SimulatedJob(0, 2)] * 3, run_seconds=1))
    assert (found.started, found.never, found.blocked) == (0, 3, [])
    assert {found.first, found.half, found.last, found.wait_median, found.wait_most} == {None}
