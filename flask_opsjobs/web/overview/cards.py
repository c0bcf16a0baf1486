"""Holds the cards of the overview: a count, one sentence that says why, a few examples, and a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...jobs.rows import Count
from ...overview.headline import PageLink


@dataclass(frozen=True)
class Example:
    """A line of a card. `payload` passes the display policy; `moment` becomes an age, or a time ahead."""

    place: PageLink
    note: str
    payload: str | None = None
    moment: datetime | None = None
    is_ahead: bool = False
    count: Count | None = None


@dataclass(frozen=True)
class Card:
    """A card of the overview. `is_` chooses its colour, `shape` its glyph. A count of None means not known.

    `payload` is appended to the sentence `says`, through the display policy; `next_at` follows it.
    """

    is_: str
    shape: str
    title: str
    count: Count | None
    says: str
    go: PageLink
    examples: Sequence[Example] = ()
    payload: str | None = None
    tag: str = ""
    next_at: datetime | None = None
