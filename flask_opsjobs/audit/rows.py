"""Holds what pages and exports get of the audit: one event, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class EventRow:
    """One decision as it is stored, but for its canonical text. Not yet through the display policy."""

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
    """Events, newest first. `older` and `newer` are the sequences from which the pages beyond begin, None when none is.

    `looked_at` is how many were looked at for these, when looking stopped before the end; else None.
    """

    rows: Sequence[EventRow]
    older: int | None
    newer: int | None
    looked_at: int | None = None


@dataclass(frozen=True)
class Head:
    """The head of the chain, and what is outside rows 1 to the head; read in one snapshot.

    `outside` counts those rows, at most 2,000. `behind` is the first of them after the head, `lowest` the first of all.
    """

    sequence: int
    hash: bytes
    outside: int
    behind: int | None
    lowest: int | None


@dataclass(frozen=True)
class Link:
    """One row with all that its hash stands over. `columns` is what the columns say, as the canonical text says it."""

    sequence: int
    columns: str
    canonical: str
    key_id: str
    previous_hash: bytes
    hash: bytes
