"""`make bench-pages` marks each line that is over its aim, as measured and as computed."""

from __future__ import annotations

import pytest

from tools.bench_pages.__main__ import AIMED_PACE, Measured
from tools.bench_pages.paths import Ask


def _line(took: list[list[float]], pace: float = AIMED_PACE, aim: int | None = 50) -> str:
    ask = Ask("jobs", lambda _: "/jobs", 200, is_export=False, aim_ms=aim)
    return Measured(ask, took, {200}, 0).line(pace)


@pytest.mark.parametrize(
    ("each", "pace", "mark"),
    [
        ([50.0, 50.0, 50.0], AIMED_PACE, None),
        # A slow repetition shows in the measured p95 only, however quick the others are.
        ([20.0, 20.0, 51.0], AIMED_PACE, "p95"),
        ([51.0, 52.0, 53.0], AIMED_PACE, f"p95, at {AIMED_PACE}"),
        # A machine of half the speed takes twice as long for the same.
        ([90.0, 90.0, 90.0], AIMED_PACE / 2, "p95"),
        ([110.0, 110.0, 110.0], AIMED_PACE / 2, f"p95, at {AIMED_PACE}"),
        # One of twice the speed would take 60 ms on that of the aims.
        ([30.0, 30.0, 30.0], AIMED_PACE * 2, f"at {AIMED_PACE}"),
    ],
)
def test_a_line_over_its_aim_is_marked(each: list[float], pace: float, mark: str | None) -> None:
    line = _line([each] * 20, pace)
    assert line.partition("  OVER: ")[2] == (mark or "")
    assert "OVER" not in _line([each] * 20, pace, aim=None)


def test_one_slow_request_of_forty_is_no_p95() -> None:
    assert "OVER" not in _line([[20.0] * 3] * 39 + [[500.0] * 3])
    assert "OVER: p95, at" in _line([[20.0] * 3] * 36 + [[500.0] * 3] * 4)


def test_a_wrong_answer_is_told() -> None:
    ask = Ask("jobs", lambda _: "/jobs", 200, is_export=False, aim_ms=50)
    assert (
        Measured(ask, [[1.0] * 3], {200, 500}, 0).line(AIMED_PACE).endswith("answered [200, 500]")
    )
