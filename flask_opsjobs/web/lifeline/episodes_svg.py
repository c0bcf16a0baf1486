"""Writes the episodes of an incident on a line of time as SVG, with the decisions between them. Pure.

Plain strings are joined; nothing in them comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from ...core.words import counted, took
from ...lifeline.queries import EpisodeRow

# In units of the drawing.
_WIDTH, _LEFT, _RIGHT = 800.0, 20.0, 780.0
_DECIDED, _TOP, _BAR, _NARROWEST = 14.0, 28.0, 16.0, 3.0
_TIMES, _NUMBERS, _BOTTOM = 62.0, 80.0, 88.0
_TICKS = 5
# What a label needs.
_LABEL = 90.0


def draw_episodes(
    episodes: Sequence[EpisodeRow], decided: Sequence[datetime], now: datetime
) -> Markup:
    """The episodes as an `<svg>`, the last one until now if it goes on. `decided` are times of decisions.

    Now moves on in steps of 8 s or of a sixteenth of the time shown, so that the drawing seldom changes.
    """
    begin = episodes[0].began_at
    end = max(_end_of(episode, episodes, now) for episode in episodes)
    step = _step_of(end - begin)
    now = _floor(now, step)
    begin, end = _widen(begin, end, step)
    seconds = (end - begin).total_seconds()

    def x(moment: datetime) -> float:
        place = (moment - begin).total_seconds() / seconds
        return _LEFT + min(1.0, max(0.0, place)) * (_RIGHT - _LEFT)

    middle = _TOP + _BAR / 2
    base = f'<path class="base" d="M{_LEFT:g} {middle:g}H{_RIGHT:g}"/>'
    marks = "".join(
        f'<path class="decision" d="M{x(at):.1f} {_DECIDED - 5:g}l5 5-5 5-5-5z"/>'
        for at in decided
        if begin <= at <= end
    )
    bars = "".join(_bars(episodes, now, x))
    last = "and it goes on" if episodes[-1].ended_at is None else "and it has ended"
    says = f"{counted(len(episodes), 'episode')}, {last}; the list below says when."
    return Markup(
        f'<svg class="pic episodes" viewBox="0 0 {_WIDTH:g} {_BOTTOM:g}" role="img"'
        f' aria-label="{escape(says)}">{base}{"".join(_ticks(begin, end, x))}{bars}{marks}</svg>'
    )


def _end_of(episode: EpisodeRow, episodes: Sequence[EpisodeRow], now: datetime) -> datetime:
    """Its end; where that is no longer stored, the begin of the next one."""
    if episode.ended_at is not None:
        return episode.ended_at
    later = [each.began_at for each in episodes if each.number > episode.number]
    return min(later, default=now)


def _step_of(span: timedelta) -> timedelta:
    step = timedelta(seconds=8)
    while step * 32 < span:
        step *= 2
    return step


def _floor(moment: datetime, step: timedelta) -> datetime:
    return datetime.fromtimestamp(
        moment.timestamp() // step.total_seconds() * step.total_seconds(), UTC
    )


def _widen(begin: datetime, end: datetime, step: timedelta) -> tuple[datetime, datetime]:
    """The window of the drawing: a little longer, and a minute at least."""
    last = max(_floor(end, step) + step, begin + timedelta(seconds=60))
    return begin - (last - begin) / 20, last


def _bars(
    episodes: Sequence[EpisodeRow], now: datetime, x: Callable[[datetime], float]
) -> Iterator[str]:
    free = 0.0
    for episode in episodes:
        is_open = episode is episodes[-1] and episode.ended_at is None
        left, right = x(episode.began_at), x(_end_of(episode, episodes, now))
        width = max(_NARROWEST, right - left)
        look = "ep" if is_open else "ep ended"
        yield (
            f'<g data-is="missing"><rect class="{look}" x="{left:.1f}" y="{_TOP:g}" width="{width:.1f}"'
            f' height="{_BAR:g}" rx="3"><title>episode {episode.number}</title></rect></g>'
        )
        if left < free:
            continue
        free = left + _LABEL
        lasted = (
            "open"
            if is_open
            else took((_end_of(episode, episodes, now) - episode.began_at).total_seconds())
        )
        anchor, place = ("end", _RIGHT) if left > _RIGHT - _LABEL else ("start", left)
        yield (
            f'<text x="{place:.1f}" y="{_NUMBERS:g}" text-anchor="{anchor}">'
            f'<tspan class="strong">{episode.number}</tspan> {lasted}</text>'
        )


def _ticks(begin: datetime, end: datetime, x: Callable[[datetime], float]) -> Iterator[str]:
    step = (end - begin) / _TICKS
    form = "%H:%M:%S" if step < timedelta(minutes=2) else "%H:%M"
    if end - begin > timedelta(days=2):
        form = "%d %b"
    for number in range(_TICKS):
        at = begin + step * (number + 0.5)
        place = x(at)
        yield f'<path class="base" d="M{place:.1f} {_TOP + _BAR / 2:g}v5"/>'
        clock = f' data-at="{at.isoformat(timespec="seconds")}"' if form == "%H:%M" else ""
        yield (
            f'<text x="{place:.1f}" y="{_TIMES:g}" text-anchor="middle"{clock}>'
            f"{at.astimezone(UTC):{form}}</text>"
        )
