"""Writes the timeline of a run as SVG: when each step waited and when it ran. Pure.

Plain strings are joined, as for the graph. So each name, address and sentence passes `escape` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from markupsafe import Markup, escape

from ...core.visible_text import on_one_line
from ...core.words import agree, counted, span
from .short_text import cut, units

MOST_ROWS = 200

# In units of the drawing: the names are left of the plot, the times below it.
_WIDTH, _LEFT, _RIGHT = 720.0, 124.0, 716.0
_TOP, _ROW, _BELOW = 14.0, 22.0, 18.0
_WAIT_HEIGHT, _RUN_HEIGHT, _NARROWEST = 6.0, 12.0, 3.0
# In letters: a name; and in units, what the number of an attempt needs.
_NAME, _NUMBER = 18, 16.0
_TICKS = 6
_SECONDS = (1, 2, 5, 10, 15, 30)
_STEPS = tuple(
    number * unit
    for unit, numbers in (
        (1, _SECONDS),
        (60, _SECONDS),
        (3600, (1, 2, 3, 6, 12)),
        (86400, (1, 2, 5, 10, 30, 100)),
    )
    for number in numbers
)
# Times of the day are written below steps of these lengths, else the time since the run began.
_CLOCK = range(60, 86400)
# Steps that a timeline with too many rows shows first.
_SHOWN_FIRST = ("failed", "retryable", "started")


@dataclass(frozen=True)
class RanFor:
    """One attempt: when it ran, and the state in which it left its step. `ended_at` is None while it runs."""

    started_at: datetime
    ended_at: datetime | None
    state: str


@dataclass(frozen=True)
class TimelineRow:
    """One step. From `released_at`, None until then, to `ended_at` it waits whenever no attempt runs.

    `note` is written behind its last attempt: "next at 14:05".
    """

    name: str
    state: str
    href: str
    released_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: Sequence[RanFor] = ()
    note: str = ""


AnyRow = TypeVar("AnyRow")


def draw_run_timeline(
    rows: Sequence[TimelineRow], steps: int, begin: datetime, end: datetime
) -> Markup:
    """The rows as an `<svg>`, from the begin of the run to its end, or to now.

    They are some of `steps` steps.
    """
    seconds = max(1.0, (end - begin).total_seconds())

    def x(moment: datetime) -> float:
        place = (moment - begin).total_seconds() / seconds
        return _LEFT + min(1.0, max(0.0, place)) * (_RIGHT - _LEFT - _NARROWEST)

    bottom = _TOP + _ROW * len(rows)
    hidden = steps - len(rows)
    drawn = [_row(row, _TOP + _ROW * at, end, x) for at, row in enumerate(rows)]
    return Markup(
        f'<svg class="pic gantt" viewBox="0 0 {units(_WIDTH)}'
        f' {units(bottom + _BELOW + (_ROW if hidden else 0))}" role="group"'
        f' aria-label="Timeline of {counted(len(rows), "step")}; the table says the same">'
        f"{''.join(_axis(begin, seconds, bottom, x))}{''.join(drawn)}"
        f"{_more(hidden, bottom) if hidden else ''}</svg>"
    )


def most_telling(rows: Sequence[AnyRow], state_of: Callable[[AnyRow], str]) -> Sequence[AnyRow]:
    """The rows that a timeline shows: all, or of more than 200 those that fail or run, and then the first."""
    if len(rows) <= MOST_ROWS:
        return rows
    places = sorted(range(len(rows)), key=lambda at: (state_of(rows[at]) not in _SHOWN_FIRST, at))
    return [rows[at] for at in sorted(places[:MOST_ROWS])]


def _more(hidden: int, bottom: float) -> str:
    says = f"{counted(hidden, 'more step')} {agree(hidden, 'is', 'are')} in the table only"
    return f'<text x="0" y="{units(bottom + _BELOW + 16)}">{says}</text>'


def _row(row: TimelineRow, top: float, end: datetime, x: Callable[[datetime], float]) -> str:
    title = escape(on_one_line(f"{row.name}: {row.state}"))
    name = (
        f'<a href="{escape(row.href)}"><title>{title}</title>'
        f'<text class="strong" x="0" y="{units(top + 14)}">{escape(cut(row.name, _NAME))}</text></a>'
    )
    if row.released_at is None:
        return f'{name}<text x="{units(_LEFT)}" y="{units(top + 14)}">not released</text>'
    left, right = x(row.released_at), x(row.ended_at or end)
    waited = (
        f'<rect class="wait" x="{units(left)}" y="{units(top + 8)}"'
        f' width="{units(max(_NARROWEST, right - left))}" height="{units(_WAIT_HEIGHT)}" rx="2"/>'
    )
    return name + waited + "".join(_attempts(row, top, end, x))


def _attempts(
    row: TimelineRow, top: float, end: datetime, x: Callable[[datetime], float]
) -> Iterator[str]:
    """A bar for each attempt, a tick where it began, and its number where there is room."""
    free = 0.0
    last = row.released_at
    for number, attempt in enumerate(row.attempts, 1):
        left, right = x(attempt.started_at), x(attempt.ended_at or end)
        yield (
            f'<g data-is="{attempt.state}"><rect class="run" x="{units(left)}" y="{units(top + 5)}"'
            f' width="{units(max(_NARROWEST, right - left))}" height="{units(_RUN_HEIGHT)}" rx="2"/></g>'
        )
        last = attempt.started_at
        if len(row.attempts) > 1:
            yield f'<path class="tick" d="M{units(left)} {units(top + 5)}v{units(_RUN_HEIGHT)}"/>'
            if left >= free and not (row.note and number == len(row.attempts)):
                yield _label(left, top, str(number))
                free = left + _NUMBER
    if row.note and last is not None:
        numbered = f"{len(row.attempts)}, " if len(row.attempts) > 1 else ""
        yield _label(x(last), top, numbered + row.note)


def _label(left: float, top: float, text: str) -> str:
    """A text above a bar; in the right half it ends there, so that it stays inside of the drawing."""
    is_late = left > (_LEFT + _RIGHT) / 2
    place = f'x="{units(left if is_late else left + 8)}" y="{units(top + 6)}"'
    anchor = ' text-anchor="end"' if is_late else ""
    return f"<text {place}{anchor}>{escape(cut(text, 60))}</text>"


def _axis(
    begin: datetime, seconds: float, bottom: float, x: Callable[[datetime], float]
) -> Iterator[str]:
    step = next((step for step in _STEPS if seconds / step <= _TICKS), _STEPS[-1])
    first = begin.astimezone(UTC)
    if step in _CLOCK:
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        first = midnight + -((midnight - first) // timedelta(seconds=step)) * timedelta(
            seconds=step
        )
    until = begin + timedelta(seconds=seconds)
    for number in range(_TICKS + 1):
        at = first + number * timedelta(seconds=step)
        if at > until:
            return
        place, anchor = units(x(at)), "end" if x(at) > _RIGHT - _NUMBER else "middle"
        clock = f' data-at="{at.isoformat()}"' if step in _CLOCK else ""
        says = f"{at:%H:%M}" if step in _CLOCK else _since(number * step)
        yield (
            f'<path class="base" d="M{place} {units(_TOP)}V{units(bottom)}"/>'
            f'<text x="{place}" y="{units(bottom + 12)}" text-anchor="{anchor}"{clock}>{says}</text>'
        )


def _since(seconds: int) -> str:
    """The time since the begin, of a tick: `start`, `+30 s`, `+1 min 30 s`, `+2 min`."""
    rest = seconds % 60
    if not seconds:
        return "start"
    return f"+{span(seconds - rest)} {rest} s" if rest and seconds > 60 else f"+{span(seconds)}"
