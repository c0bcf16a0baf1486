"""Writes the loops of a day as SVG: a bar for each while it ran, hatched where it did not. Pure.

Plain strings are joined, so each name passes `escape` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from ...core.words import agree, counted
from ...lifeline.loop_runs import Watch

DAY = timedelta(days=1)
# In units of the drawing: the names are left of the plot, the times below it.
_WIDTH, _LEFT, _TOP, _ROW, _BELOW = 420.0, 104.0, 10.0, 17.0, 18.0
_BAR, _BLIND, _NARROWEST = 4.0, 12.0, 3.0
# The drawing moves on by so much, so that a page without news stays the same.
_STEP = timedelta(minutes=5)


def begin_of_day(now: datetime) -> datetime:
    """Where the day before `now` begins, down to five minutes."""
    step = _STEP.total_seconds()
    return datetime.fromtimestamp(now.timestamp() // step * step, UTC) - DAY


def draw_loops(watches: Sequence[Watch], now: datetime) -> Markup:
    """The loops as an `<svg>` over the day before `now`. A table says the same to the second."""
    begin = begin_of_day(now)

    def x(moment: datetime) -> float:
        place = (moment - begin) / DAY
        return _LEFT + min(1.0, max(0.0, place)) * (_WIDTH - _LEFT)

    bottom = _TOP + _ROW * len(watches)
    blind = [watch for watch in watches if watch.windows]
    says = f"{counted(len(watches), 'loop')} over 24 hours. "
    says += (
        f"{counted(len(blind), 'loop')} {agree(len(blind), 'was', 'were')} silent for some time;"
        " the table says when."
        if blind
        else "All ran all the time."
    )
    rows = "".join(_row(watch, _TOP + _ROW * at, x) for at, watch in enumerate(watches))
    ticks = "".join(_ticks(begin, bottom + _BELOW - 4))
    return Markup(
        f'<svg class="pic loops" viewBox="0 0 {_WIDTH:g} {bottom + _BELOW:g}" role="img"'
        f' aria-label="{escape(says)}">{rows}{ticks}</svg>'
    )


def _row(watch: Watch, top: float, x: Callable[[datetime], float]) -> str:
    name, middle = escape(watch.loop.loop), top + _ROW / 2
    text = f'<text x="0" y="{middle + 4:.1f}">{name}</text>'
    bar = (
        f'<rect class="awake" x="{_LEFT:g}" y="{middle - _BAR / 2:.1f}" width="{_WIDTH - _LEFT:g}"'
        f' height="{_BAR:g}" rx="1"/>'
    )
    return text + bar + "".join(_windows(watch, middle, x))


def _windows(watch: Watch, middle: float, x: Callable[[datetime], float]) -> Iterator[str]:
    for began, ended in watch.windows:
        left, right = x(began), _WIDTH if ended is None else x(ended)
        width = max(_NARROWEST, right - left)
        left = min(left, _WIDTH - width)
        place = (
            f'x="{left:.1f}" y="{middle - _BLIND / 2:.1f}" width="{width:.1f}" height="{_BLIND:g}"'
        )
        # The panel's colour below the hatching hides the bar: nothing is drawn where nobody watched.
        yield f'<rect class="blind" {place}/><rect class="uncounted" {place}/>'


def _ticks(begin: datetime, y: float) -> Iterator[str]:
    half = (_LEFT + _WIDTH) / 2
    for x, anchor, at in (
        (_LEFT, "start", begin),
        (half, "middle", begin + DAY / 2),
    ):
        yield (
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" data-at="{at.isoformat()}">'
            f"{at:%H:%M}</text>"
        )
    yield f'<text x="{_WIDTH:g}" y="{y:g}" text-anchor="end">now</text>'
