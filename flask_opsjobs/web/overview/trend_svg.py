"""Writes how often something happened in each hour of a day as a small SVG. Pure.

Plain strings are joined; nothing in them comes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ...core.words import counted

# In units of the drawing, of one bar and of the whole.
_STEP, _BAR, _HEIGHT, _LOWEST = 4.0, 3.2, 20.0, 2.0


def draw_trend(hours: Sequence[int], what: str) -> Markup:
    """The hours as bars, the last one now. `what` names one of the things that were counted."""
    highest = max(hours, default=0)
    bars = "".join(
        f"M{place * _STEP:g} {_HEIGHT:g}h{_BAR:g}v-{_height(number, highest):.1f}h-{_BAR:g}z"
        for place, number in enumerate(hours)
        if number
    )
    width = len(hours) * _STEP
    says = f"{counted(sum(hours), what)} in {len(hours)} hours"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width:g} {_HEIGHT:g}" role="img" aria-label="{says}">'
        f'<path class="base" d="M0 {_HEIGHT - 0.25:g}h{width:g}"/><path class="bars" d="{bars}"/></svg>'
    )


def _height(number: int, highest: int) -> float:
    """As high as its share, and high enough to be seen."""
    return max(_LOWEST, number / highest * (_HEIGHT - 3))
