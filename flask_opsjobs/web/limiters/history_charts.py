"""Draws the last hour of a limiter by minute: the jobs that it let start, returned and rejected."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ...overview.pace_queries import Pace
from ..app.charts import Chart, rate_chart

# (key, title, text beside the number, whether it is bad).
_KINDS = (
    ("admitted", "Started", "let start a minute", False),
    ("returned", "Returned", "returned at the claim a minute", False),
    ("rejected", "Rejected", "rejected at enqueue a minute", True),
)


def make_limit_charts(
    pace: Pace, minutes: Mapping[datetime, tuple[int, int, int]], *, rejects: bool
) -> list[Chart]:
    """The charts of a limiter. Rejections have one only if it rejects or did so in this hour.

    Minutes that nobody counted, according to `pace`, are gaps.
    """
    has_rejected = any(counted[2] for counted in minutes.values())
    charts = []
    for place, (key, title, what, is_bad) in enumerate(_KINDS):
        if is_bad and not (rejects or has_rejected):
            continue
        values = [
            None if step.finished is None else minutes.get(step.start, (0, 0, 0))[place]
            for step in pace.steps
        ]
        charts.append(rate_chart(pace, key, title, what, values, bars=is_bad))
    return charts
