"""A chart: what it shows, and how that is written as SVG and as cells of a table. Pure.

Plain strings are joined, because a page has up to three charts with a hundred links each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from markupsafe import Markup, escape

from ...core.visible_text import visible

# The plot, in units of the drawing. The labels are to the right of it and below it.
WIDTH, TOP, BOTTOM = 256, 8, 104
_HEIGHT = BOTTOM - TOP
_UNREACHED = ' tabindex="-1" aria-hidden="true"'

# None: nobody counted, or there is no such number.
Values = Sequence[float | None]


@dataclass(frozen=True)
class BarLink:
    """A step of a chart, which begins at `at`, as a link to a search of its jobs. `says` how many these are.

    `at` is a text when the step is a day. The highest of each twelfth of a chart is reached with Tab
    (`is_stop`), all are in the table below it.
    """

    x: float
    width: float
    at: datetime | str
    says: str
    url: str
    is_stop: bool


@dataclass(frozen=True)
class Series:
    """The values of a chart as a column of the table below it, with links by the number of their step."""

    title: str
    values: Values
    say: Callable[[float], str]
    links: Mapping[int, BarLink] = field(default_factory=dict)
    is_before: bool = False

    @cached_property
    def cells(self) -> Sequence[Markup]:
        """Its cells in the table. Kept, since a table has hundreds of cells."""
        mute = " mute" if self.is_before else ""
        begin = f'<td class="n{mute}" data-label="{_text(self.title.lower())}">'
        return tuple(
            Markup(f"{begin}{self._cell(at, value)}</td>") for at, value in enumerate(self.values)
        )

    def _cell(self, at: int, value: float | None) -> str:
        says = _text("–" if value is None else self.say(value))
        link = self.links.get(at)
        return f'<a href="{escape(link.url)}">{says}</a>' if link else says

    def shortened(self) -> Series:
        """The same with fewer links: those that are reached with Tab."""
        return replace(self, links={at: link for at, link in self.links.items() if link.is_stop})


@dataclass(frozen=True)
class Chart:
    """One chart. `value` and `says` are shown above it; `finding` describes it for screen readers.

    `context` are grey bars behind the others, `ghost` is a thin line of the window before.
    """

    key: str
    title: str
    value: str
    says: str
    finding: str
    grid: Sequence[tuple[float, str]]
    ticks: Sequence[tuple[float, str, datetime | str]]
    uncounted: Sequence[tuple[float, float]]
    area: str = ""
    trace: str = ""
    second: str = ""
    bars: str = ""
    context: str = ""
    ghost: str = ""
    dot: tuple[float, float] | None = None
    series: Sequence[Series] = ()

    @cached_property
    def links(self) -> Sequence[BarLink]:
        """The steps that are links."""
        return [link for series in self.series for link in series.links.values()]

    @cached_property
    def drawing(self) -> Markup:
        """The chart as SVG, without the marks in it."""
        return Markup("".join(_parts(self)))


def _parts(chart: Chart) -> Iterator[str]:
    yield f'<desc id="d-{chart.key}">{_text(chart.finding)}</desc>'
    for y, label in chart.grid:
        yield f'<path class="grid" d="M0 {y}h{WIDTH}"/>'
        if label:
            yield f'<text x="{WIDTH + 6}" y="{y + 3.5}">{_text(label)}</text>'
    for kind, path in (
        ('class="area"', chart.area),
        ('class="trace ghost"', chart.ghost),
        ('class="trace two"', chart.second),
        ('class="trace"', chart.trace),
        ('class="bars" data-is="context"', chart.context),
        ('class="bars" data-is="failed"', chart.bars),
    ):
        if path:
            yield f'<path {kind} d="{path}"/>'
    for x, width in chart.uncounted:
        yield f'<rect class="uncounted" x="{x}" y="{TOP}" width="{width}" height="{_HEIGHT}"/>'
    for link in chart.links:
        yield _link(link)
    if chart.dot:
        yield f'<circle class="dot" cx="{chart.dot[0]}" cy="{chart.dot[1]}" r="3.5"/>'
    for x, anchor, at in chart.ticks:
        yield f'<text x="{x}" y="{BOTTOM + 14}" text-anchor="{anchor}">{_time(at)}</text>'


def _link(link: BarLink) -> str:
    # The label of a link in the right half ends at the right edge.
    place = f' x="{WIDTH}" text-anchor="end"' if link.x >= WIDTH / 2 else ""
    return (
        f'<a class="bar-link" href="{escape(link.url)}"{"" if link.is_stop else _UNREACHED}>'
        f'<path d="M{link.x} {TOP}h{link.width}v{_HEIGHT}h-{link.width}z"/>'
        f'<text{place} y="3">{_time(link.at)}: {_text(link.says)}</text></a>'
    )


def _time(at: datetime | str) -> str:
    """A time of day, which the script rewrites in the time zone of the reader; or a text."""
    if isinstance(at, str):
        return _text(at)
    iso = at.isoformat()  # several times as fast as formats
    return f'<tspan data-at="{iso[:16]}Z">{iso[11:16]}</tspan>'


def _text(text: str) -> str:
    return escape(visible(text))
