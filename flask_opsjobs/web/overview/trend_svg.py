"""Writes how often something happened in each hour of a day as a small SVG, with the deploys. Pure.

Plain strings are joined; nothing in them comes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from markupsafe import Markup

from ...core.words import counted
from ...failures.queries import DeployMark
from ..app.charts import place_deploys

# In units of the drawing, of one bar and of the whole.
_STEP, _BAR, _HEIGHT, _LOWEST = 4.0, 3.2, 20.0, 2.0


def draw_trend(
    hours: Sequence[int],
    what: str,
    since: datetime,
    marks: Sequence[DeployMark],
    failed: Sequence[int] = (),
) -> Markup:
    """The hours from `since` as bars, the last one now, and the deploys as lines.

    `what` names one of the things that were counted. Of these so many `failed`.
    """
    highest = max(hours, default=0)
    bars, red = _bars(hours, highest), _bars(failed, highest)
    width = len(hours) * _STEP
    placed = place_deploys(marks, since, timedelta(hours=len(hours)), width)
    lines = "".join(f"M{x:.1f} 0V{_HEIGHT:g}" for x, _ in placed)
    deploys = f", {counted(len(placed), 'deploy')}" if placed else ""
    bad = f", {sum(failed):,} failed" if red else ""
    says = f"{counted(sum(hours), what)} in {len(hours)} hours{bad}{deploys}"
    above = f'<path class="bars" data-is="failed" d="{red}"/>' if red else ""
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width:g} {_HEIGHT:g}" role="img" aria-label="{says}">'
        f'<path class="base" d="M0 {_HEIGHT - 0.25:g}h{width:g}"/><path class="bars" d="{bars}"/>'
        f'{above}<path class="deploy" d="{lines}"/></svg>'
    )


def _bars(numbers: Sequence[int], highest: int) -> str:
    return "".join(
        f"M{place * _STEP:g} {_HEIGHT:g}h{_BAR:g}v-{_height(number, highest):.1f}h-{_BAR:g}z"
        for place, number in enumerate(numbers)
        if number
    )


def _height(number: int, highest: int) -> float:
    """As high as its share, and high enough to be seen."""
    return max(_LOWEST, number / highest * (_HEIGHT - 3))
