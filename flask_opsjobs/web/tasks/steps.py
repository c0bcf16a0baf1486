"""Draws an hour, a day or a month of one task: what came, ended and failed, run times and waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy.orm import Session

from ...core.round_trips import start_reading
from ...failures.queries import DAY, MONTH, QUARTER, floor
from ...jobs.search.filter import JobFilter
from ...overview.pace_queries import Pace, PaceStep
from ...tasks.queries import TaskStep, find_begin, list_task_steps
from ..app.chart import Chart
from ..app.charts import KEPT, FindJobs, rate_chart, run_time_chart, wait_chart
from ..app.numbers import find_jobs

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
# The length of each window, and of its steps; and what one step is called.
WINDOWS = {
    "hour": (_HOUR, _MINUTE, "a minute"),
    "day": (DAY, QUARTER, "in 15 minutes"),
    "month": (MONTH, DAY, "a day"),
}


def find_task_pace(session: Session, task: str, window: str, now: datetime) -> Pace:
    """The window of a task up to now, whose last step is the current one, and the window before.

    A step before anything was counted is not known.
    """
    span, step, _ = WINDOWS[window]
    start = floor(now, step) + step - 2 * span
    beginning = start_reading(session, find_begin)
    found = list_task_steps(session, task, start, start + 2 * span, step)
    begin = beginning.value
    steps = tuple(_pace_step(start + at * step, found, begin) for at in range(2 * span // step))
    number = span // step
    return Pace(window, step, steps[number:], steps[:number])


def _pace_step(
    at: datetime, found: Mapping[datetime, TaskStep], begin: datetime | None
) -> PaceStep:
    if begin is None or at < begin:
        return PaceStep(at)
    one = found.get(at)
    if one is None:
        return PaceStep(at, ended=0.0, finished=0.0, failed=0.0)
    return PaceStep(
        at,
        ended=float(one.ended),
        finished=float(one.finished),
        failed=float(one.failed),
        median=one.median,
        p95=one.p95,
        wait=one.wait,
    )


def draw_task_pace(pace: Pace, wanted: JobFilter) -> Sequence[Chart]:
    """Throughput, failures, run time and wait. `wanted` are the jobs of the task."""
    return _draw(pace, find_jobs(wanted, "ended"), find_jobs(wanted.but(state="failed"), "ended"))


@lru_cache(maxsize=KEPT)
def _draw(pace: Pace, find_ended: FindJobs | None, find_failed: FindJobs | None) -> Sequence[Chart]:
    per_step = WINDOWS[pace.window][2]
    return (
        rate_chart(
            pace,
            "ended",
            "Throughput",
            f"ended {per_step}",
            pace.values("ended"),
            find_jobs=find_ended,
        ),
        rate_chart(
            pace,
            "failed",
            "Failures",
            f"failed {per_step}",
            pace.values("failed"),
            find_jobs=find_failed,
            bars=True,
        ),
        run_time_chart(pace),
        wait_chart(pace),
    )
