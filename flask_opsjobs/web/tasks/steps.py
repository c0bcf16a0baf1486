"""Draws an hour, a day or a month of one task: what ended and failed, run times and waits, with deploys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ...failures.queries import DAY, MONTH, QUARTER, DeployMark, floor
from ...overview.pace_queries import Pace, PaceStep
from ...tasks.queries import TaskStep, find_begin, list_task_steps
from ..app.charts import Chart, make_flags, rate_chart, run_time_chart, wait_chart

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
# The length of each window, and of its steps; and what one step is called.
WINDOWS = {
    "hour": (_HOUR, _MINUTE, "a minute"),
    "day": (DAY, QUARTER, "in 15 minutes"),
    "month": (MONTH, DAY, "a day"),
}


@dataclass(frozen=True)
class TaskWindow:
    """A window of one task in steps; the last one is the current one. `ghost` is what ended a day before."""

    pace: Pace
    ghost: Sequence[float | None]
    per_step: str

    @property
    def start(self) -> datetime:
        """Where it begins."""
        return self.pace.steps[0].start


def read_window(session: Session, task: str, window: str, now: datetime) -> TaskWindow:
    """The window of a task up to now. A step before anything was counted is not known."""
    span, step, per_step = WINDOWS[window]
    start = floor(now, step) + step - span
    begin = find_begin(session)
    found = list_task_steps(session, task, start, start + span, step)
    steps = [_pace_step(start + at * step, found, begin) for at in range(span // step)]
    ghost: list[float | None] = []
    if span <= DAY:
        before = list_task_steps(session, task, start - DAY, start - DAY + span, step)
        ghost = [_pace_step(one.start - DAY, before, begin).finished for one in steps]
    return TaskWindow(Pace(window, step, steps, now), ghost, per_step)


def _pace_step(
    at: datetime, found: Mapping[datetime, TaskStep], begin: datetime | None
) -> PaceStep:
    if begin is None or at < begin:
        return PaceStep(at)
    one = found.get(at)
    if one is None:
        return PaceStep(at, finished=0.0, failed=0.0)
    return PaceStep(at, float(one.ended), float(one.failed), one.median, one.p95, one.wait)


def draw_window(window: TaskWindow, marks: Sequence[DeployMark]) -> Sequence[Chart]:
    """Throughput beside the day before, failures, run time and wait."""
    pace, per_step = window.pace, window.per_step
    charts = (
        rate_chart(
            pace,
            "throughput",
            "Throughput",
            f"ended {per_step}",
            [step.finished for step in pace.steps],
            ghost=window.ghost,
        ),
        rate_chart(
            pace,
            "failed",
            "Failures",
            f"failed {per_step}",
            [step.failed for step in pace.steps],
            bars=True,
        ),
        run_time_chart(pace),
        wait_chart(pace),
    )
    flags = make_flags(marks, window.start, pace.step * len(pace.steps))
    return [replace(chart, flags=flags) for chart in charts]
