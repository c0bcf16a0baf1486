"""Draws an hour or a day of one queue: what came, ended and failed, run times, waits and depth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ...jobs.search.filter import JobFilter
from ...overview.pace_queries import Pace
from ..app.chart import Chart
from ..app.charts import KEPT, FindJobs, depth_chart, rate_chart, run_time_chart, wait_chart
from ..app.numbers import find_jobs, without_plain

_PER_STEP = {"hour": "a minute", "day": "in 15 minutes"}


def draw_queue_pace(pace: Pace, wanted: JobFilter) -> Sequence[Chart]:
    """Enqueued, ended and failed jobs, run times, waits and depth. `wanted` are the jobs of the queue."""
    return _draw(
        pace,
        find_jobs(without_plain(wanted), "created"),
        find_jobs(wanted, "ended"),
        find_jobs(wanted.but(state="failed"), "ended"),
    )


@lru_cache(maxsize=KEPT)
def _draw(
    pace: Pace,
    find_enqueued: FindJobs | None,
    find_ended: FindJobs | None,
    find_failed: FindJobs | None,
) -> Sequence[Chart]:
    rates = [
        rate_chart(
            pace,
            key,
            title,
            f"{key} {_PER_STEP[pace.window]}",
            pace.values(key),
            find_jobs=find,
            bars=key == "failed",
        )
        for key, title, find in (
            ("enqueued", "Enqueued", find_enqueued),
            ("ended", "Ended", find_ended),
            ("failed", "Failures", find_failed),
        )
    ]
    return (*rates, run_time_chart(pace), wait_chart(pace), depth_chart(pace))
