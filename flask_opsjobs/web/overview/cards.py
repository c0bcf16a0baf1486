"""Holds a card of the overview as a page shows it: how many, why in one sentence, a few examples, and where to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...jobs.rows import Count
from ...overview.outages import PageLink


@dataclass(frozen=True)
class Example:
    """A line of a card. `payload` is shown through the display policy; `moment` as an age, or how far ahead it is."""

    place: PageLink
    note: str
    payload: str | None = None
    moment: datetime | None = None
    is_ahead: bool = False
    count: Count | None = None


@dataclass(frozen=True)
class Card:
    """A card of the overview. `is_` chooses its colour, `shape` its glyph. No count: it cannot be told.

    `payload` ends the sentence `says`, through the display policy; `next_at` is said after it.
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
