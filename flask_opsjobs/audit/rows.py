"""Holds the rows that pages, exports and the verification read from the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class EventRow:
    """One decision as stored, without its canonical text. It has not passed the display policy yet."""

    sequence: int
    at: datetime
    actor: str
    via: str
    action: str
    subject: str
    targets: Sequence[str]
    permission: str | None
    reason: str | None
    outcome: str
    code: str | None
    request_id: str | None
    preview_id: int | None
    previewed_at: datetime | None
    before: Any
    after: Any
    key_id: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True)
class EventPage:
    """A page of events, newest first. `older` and `newer` are where the neighbouring pages begin, or None.

    `looked_at` is how many events were searched when the search stopped before the end; else None.
    """

    rows: Sequence[EventRow]
    older: int | None
    newer: int | None
    looked_at: int | None = None


@dataclass(frozen=True)
class Head:
    """The head of the chain, and the rows outside rows 1 to the head. Read in one snapshot.

    `outside` counts these rows, up to 2,000. `behind` is the first of them after the head, `lowest` the
    lowest of all.
    """

    sequence: int
    hash: bytes
    outside: int
    behind: int | None
    lowest: int | None


@dataclass(frozen=True)
class Link:
    """One row with all that its hash covers.

    `columns` are its columns as JSON, in the form of the canonical text.
    """

    sequence: int
    columns: str
    canonical: str
    key_id: str
    previous_hash: bytes
    hash: bytes
