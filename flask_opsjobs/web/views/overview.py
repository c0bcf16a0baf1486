"""The first page: what is wrong, how much waits where, who is alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import Response
from markupsafe import Markup

from ...jobs.rows import Count
from ...overview.queries import Overview, find_overview
from ...overview.verdict import judge
from .. import _pages
from .._reads import reading

WAITS = ("scheduled", "deferred", "retryable")
MOVES = ("available", "queued", "started")


@dataclass(frozen=True)
class Card:
    """A cell of the ledger: some live states together. `is_` chooses its colour, `shape` its glyph."""

    is_: str
    shape: str
    title: str
    says: str
    states: tuple[str, ...]
    count: Count


def page() -> Response:
    """The document."""
    made, now = _part()
    return _pages.page("overview.html", "overview", "Overview", now, live=made)


def live() -> Response:
    """What of it refreshes."""
    return _pages.fragment(_part()[0])


def _part() -> tuple[Markup, datetime]:
    with reading() as read:
        seen = find_overview(read.session, read.now)
    verdict, cards = judge(seen), list(_cards(seen))
    return _pages.part(
        "overview/_live.html", read.now, seen=seen, verdict=verdict, cards=cards
    ), read.now


def _cards(seen: Overview) -> Iterator[Card]:
    for is_, shape, title, says, states in (
        (
            "waiting",
            "scheduled",
            "Waiting",
            "In order: due later, backing off, or behind another job.",
            WAITS,
        ),
        ("runnable", "started", "Runnable", "Due now, handed out, or running.", MOVES),
    ):
        yield Card(
            is_, shape, title, says, states, Count.sum(seen.live[state].count for state in states)
        )
