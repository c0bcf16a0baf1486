"""The simulation: starts at the moments that the arithmetic which admits gives, with time moving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.limits.bucket import CONCURRENCY, COOLDOWN, TOKENS, BucketLevel, Shape
from flask_opsjobs.limits.simulation import (
    NO_WORKER,
    BadTrace,
    SimulatedJob,
    TooLong,
    read_trace,
    simulate,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_rate_starts_its_burst_and_then_one_by_one() -> None:
    found = simulate(Shape(1, 10, 3), [SimulatedJob(0)] * 6, run_seconds=1)
    assert found.starts == pytest.approx([0, 0, 0, 10, 20, 30], abs=1e-3)
    assert found.blocked[TOKENS] == pytest.approx(30, abs=1e-3)


def test_places_start_the_next_when_one_ends() -> None:
    found = simulate(Shape(concurrency=2), [SimulatedJob(0)] * 5, run_seconds=7)
    assert (found.starts, found.most_at_once) == ([0, 0, 7, 7, 14], 2)
    assert found.blocked == {CONCURRENCY: 14}


def test_workers_bound_what_runs_at_once() -> None:
    found = simulate(Shape(concurrency=10), [SimulatedJob(0)] * 3, run_seconds=5, workers=1)
    assert (found.starts, found.blocked) == ([0, 5, 10], {NO_WORKER: 10})


def test_it_begins_with_what_stands_there() -> None:
    empty = BucketLevel(tokens=0.0, refilled_at=NOW, cooldown_until=NOW + timedelta(seconds=30))
    found = simulate(Shape(1, 60, 1), [SimulatedJob(0)], run_seconds=1, level=empty, now=NOW)
    assert found.starts == pytest.approx([60], abs=1e-3)
    assert set(found.blocked) == {COOLDOWN, TOKENS}


def test_what_is_queued_counts_as_started() -> None:
    level = BucketLevel(tokens=3.0, refilled_at=NOW, in_use=1, queued=2)
    found = simulate(Shape(1, 10, 5), [SimulatedJob(0)] * 2, run_seconds=1, level=level, now=NOW)
    assert found.starts == pytest.approx([0, 10], abs=1e-3)
    found = simulate(Shape(concurrency=3), [SimulatedJob(0)], run_seconds=5, level=level, now=NOW)
    assert found.starts == [5]


@pytest.mark.parametrize(
    ("shape", "run_seconds"),
    [(Shape(1e-9, 31_622_400, 1), 1), (Shape(1, 31_622_400, 1), 0), (Shape(concurrency=1), 1e300)],
)
def test_what_takes_more_than_a_hundred_years_is_refused(shape: Shape, run_seconds: float) -> None:
    with pytest.raises(TooLong, match="more than 100 years"):
        simulate(shape, [SimulatedJob(0)] * 200, run_seconds=run_seconds)


def test_what_is_too_heavy_never_starts_and_delays_nobody() -> None:
    found = simulate(Shape(concurrency=2), [SimulatedJob(0, 3), SimulatedJob(0, 2)], run_seconds=1)
    assert (found.never, found.starts) == (1, [0])


@given(
    rate=st.integers(1, 50),
    per=st.sampled_from([1, 10, 60]),
    burst=st.integers(1, 20),
    arrivals=st.lists(st.floats(0, 100), min_size=1, max_size=60),
)
def test_it_never_starts_more_than_burst_and_rate_allow(
    rate: int, per: int, burst: int, arrivals: list[float]
) -> None:
    found = simulate(Shape(rate, per, burst), [SimulatedJob(at) for at in arrivals], run_seconds=0)
    assert len(found.starts) == len(arrivals)
    assert all(wait >= 0 for wait in found.waits)
    for first, begin in enumerate(found.starts):
        for last in range(first, len(found.starts)):
            allowed = burst + rate / per * (found.starts[last] - begin)
            assert last - first + 1 <= allowed + 0.01


def test_a_trace_is_seconds_and_weights() -> None:
    text = "# arrivals\n0\n1.5 3\n\n1e1  # late\n"
    assert read_trace(text.splitlines()) == [
        SimulatedJob(0.0),
        SimulatedJob(1.5, 3),
        SimulatedJob(10.0),
    ]


@pytest.mark.parametrize("line", ["x", "-1", "nan", "inf", "1 0", "1 -2", "1 2.5", "1 2 3", "1e10"])
def test_nonsense_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadTrace, match="line 2: "):
        read_trace(["0", line])
