"""Draws an hour or a day of one queue: what came, ended and failed, run times, waits and depth."""

from __future__ import annotations

from collections.abc import Sequence

from ...jobs.search.filter import JobFilter
from ...overview.pace_queries import Pace
from ..app.charts import Chart, depth_chart, rate_chart, run_time_chart, wait_chart
from ..app.numbers import find_jobs, without_plain

_PER_STEP = {"hour": "a minute", "day": "in 15 minutes"}


def draw_queue_pace(pace: Pace, wanted: JobFilter) -> Sequence[Chart]:
    """Enqueued, ended and failed jobs, run times, waits and depth. `wanted` are the jobs of the queue."""
    rates = [
        rate_chart(
            pace,
            key,
            title,
            f"{key} {_PER_STEP[pace.window]}",
            pace.values(key),
            find_jobs=find_jobs(jobs, qualifier),
            bars=key == "failed",
        )
        for key, title, jobs, qualifier in (
            ("enqueued", "Enqueued", without_plain(wanted), "created"),
            ("ended", "Ended", wanted, "ended"),
            ("failed", "Failures", wanted.but(state="failed"), "ended"),
        )
    ]
    return [*rates, run_time_chart(pace), wait_chart(pace), depth_chart(pace)]
