"""Gives templates their filters: times, durations, counts, and texts through the display policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from ...core.visible_text import visible
from ...core.words import agree, counted, took
from ...jobs.rows import Count
from .display import mark_hidden
from .host import host

# As `core.words.moment` writes it.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|(?:ms|s|min|h|d|kB|MB|GB)\b)")


@pass_context
def ago(context: Context, moment: datetime | None) -> Markup:
    """A moment relative to now: `12 min ago`, `in 3 min`, `now`."""
    return _time(context, moment, "ago", "{} UTC")


@pass_context
def age(context: Context, moment: datetime | None) -> Markup:
    """The time since a moment: `12 min`."""
    return _time(context, moment, "age", "since {} UTC")


@pass_context
def due(context: Context, moment: datetime | None) -> Markup:
    """When something becomes or became due, as a verb: `is due in 3 min`, `has been due for 12 s`."""
    return _time(context, moment, "due", "is due at {} UTC")


@pass_context
def lasting(context: Context, moment: datetime | None) -> Markup:
    """How long something has lasted: `for 12 min`."""
    return _time(context, moment, "for", "since {} UTC")


@pass_context
def clock(context: Context, moment: datetime | None) -> Markup:
    """The time of day, `02:14:07`, with its date unless that is today's: `2026-11-23 23:10:44`."""
    return _time(context, moment, "clock", "{}")


@pass_context
def moment(context: Context, moment: datetime | None) -> Markup:
    """A moment with date and zone, even when it is today: `2026-11-23 23:10:44 UTC`."""
    return _time(context, moment, "moment", "{} UTC", has_day=True)


@pass_context
def heartbeat(context: Context, moment: datetime) -> Markup:
    """`on time` while the last heartbeat is recent enough, else when it was.

    So the page does not change with every heartbeat.
    """
    late_seconds = host().settings.late_seconds
    if (context["now"] - moment).total_seconds() > late_seconds:
        return ago(context, moment)
    return Markup('<span title="within the last {:g} s">on time</span>').format(late_seconds)


@pass_context
def roughly_ago(context: Context, moment: datetime) -> Markup:
    """The last time of something that is repeated every few seconds; exact only after a minute without it.

    So the page does not change with every repetition.
    """
    if (context["now"] - moment).total_seconds() > 60:
        return ago(context, moment)
    return Markup("under 1 min ago")


def _time(
    context: Context, moment: datetime | None, words: str, text: str, *, has_day: bool = False
) -> Markup:
    """A `<time>` element with the time of day. The script rewrites it in the style `words`, each second.

    A response never contains an age: it stays the same while nothing happens, so that a poll answers 304.
    """
    if moment is None:
        return Markup("")
    moment = moment.astimezone(UTC)
    # Several times as fast as formats: a page has hundreds of times.
    iso = moment.isoformat()
    date, time = iso[:10], iso[11:19]
    is_today = not has_day and moment.date() == context["now"].astimezone(UTC).date()
    shown = text.format(time if is_today else f"{date} {time}")
    # Nothing to escape: digits, and words of ours.
    return Markup(
        f'<time datetime="{date}T{time}Z" title="{date} {time} UTC" data-as="{words}">{shown}</time>'
    )


@pass_context
def with_times(context: Context, text: str) -> Markup:
    """A sentence of ours, or markup of one, in which each moment to the second becomes a `clock`."""

    def show(found: re.Match[str]) -> str:
        return clock(context, datetime.fromisoformat(f"{found[1]}+00:00"))

    # Digits have nothing to escape.
    return Markup(_MOMENT.sub(show, escape(text)))


def number(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}"


def count(value: Count) -> Markup:
    """A count with a sign that says how exact it is: `1,204`, `10,000+`, `≈ 9.4 M`."""
    if value.kind == "at_least":
        return Markup('<span title="at least; counting stopped">{}+</span>').format(
            number(value.number)
        )
    if value.kind == "about":
        text = (
            f"{value.number / 1e6:.1f} M"
            if value.number >= 1e6
            else number(round(value.number, -2))
        )
        return Markup('<span title="estimated by the database">≈ {}</span>').format(text)
    return escape(number(value.number))


def size(byte_count: int | None) -> str:
    """A number of bytes in kB, MB or GB."""
    if byte_count is None:
        return ""
    kilos = byte_count / 1000
    if kilos >= 1_000_000:
        return f"{kilos / 1_000_000:,.2f} GB"
    return f"{kilos / 1000:,.1f} MB" if kilos >= 1000 else f"{kilos:,.1f} kB"


def middle(name: str | None, most: int = 32) -> Markup:
    """A name; a long one without its middle, since begin and end tell names apart. The title has it whole."""
    shown = escape(written(name or ""))
    text = shown.unescape()
    if len(text) <= most or "<" in shown:  # leave marks of the display policy whole
        return shown
    begin = most - most // 3
    return Markup('<span class="short-name" title="{}">{}…{}</span>').format(
        text, text[:begin], text[begin + 1 - most :]
    )


def unbroken(text: str) -> str:
    """A sentence of ours in which no line ends between a number and its unit: `126 %`, `5 min`."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def short_names(text: str) -> Markup:
    """A sentence of ours in which each long name is shortened by `middle`."""
    return Markup(" ").join(middle(word) for word in text.split(" "))


def code(text: str) -> Markup:
    """A sentence of ours, or markup of one, in which text between backticks becomes `<code>`."""
    parts = re.split(r"`([^`]*)`", escape(written(text)))
    marked = (
        Markup("<code>{}</code>").format(Markup(part)) if at % 2 else Markup(part)
        for at, part in enumerate(parts)
    )
    return Markup("").join(marked)


def typed(text: Any) -> Markup:
    """A form value, which goes back to the server unchanged: control characters are not written out."""
    return escape(text)


def written(value: Any) -> Any:
    """Any value that a template writes; in texts, control and bidi characters are written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shown(method: str) -> Callable[..., Markup]:
    @pass_context
    def shown(context: Context, text: str | Undefined | None, *args: Collection[str]) -> Markup:
        if isinstance(text, Undefined):
            str(text)  # raises: the policy would fail on it, and the page would call it hidden
        found: Markup = getattr(context["display"], method)(text, *args)
        return found

    return shown


FILTERS: dict[str, Callable[..., Any]] = {
    "agree": agree,
    "counted": counted,
    "age": age,
    "ago": ago,
    "clock": clock,
    "moment": moment,
    "code": code,
    "count": count,
    "due": due,
    "heartbeat": heartbeat,
    "lasting": lasting,
    "roughly_ago": roughly_ago,
    "with_times": with_times,
    "marked": mark_hidden,
    "middle": middle,
    "short_names": short_names,
    "number": number,
    "size": size,
    "took": took,
    "total": Count.sum,
    "typed": typed,
    "unbroken": unbroken,
    # Only these pass the display policy.
    "shown": _shown("text"),
    "shown_json": _shown("json"),
    "shown_kind": _shown("kind"),
    "shown_label": _shown("label"),
    "shown_log": _shown("log"),
    "shown_line": _shown("line"),
    "shown_name": _shown("name"),
}
