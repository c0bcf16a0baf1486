"""Declares one event of a history, as the domains tell it to pages and to forensics. Data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

# The source of what no process reported.
INFERRED = "nobody: inferred"


@dataclass(frozen=True)
class Event:
    """Something that happened to a subject, or was true of it `until` a time, and who reported it.

    `is_` chooses colour and shape in the stylesheet. No text has passed the display policy yet; `payload` is
    shown only to who may see payload. `label` is a text that a person wrote, such as a reason. `subject`
    names what the event is about, such as `worker/7`, when that is something else. `audit` is the sequence of
    its decision.
    """

    at: datetime
    is_: str
    text: str
    source: str
    payload: str | None = None
    label: str | None = None
    audit: int | None = None
    # For a time that nobody saw: the last look before it.
    after: datetime | None = None
    until: datetime | None = None
    subject: str | None = None

    @property
    def is_inferred(self) -> bool:
        """Whether the event was inferred: no process reported it."""
        return self.source == INFERRED


def newest_first(events: Iterable[Event]) -> list[Event]:
    """The events by time. The sort is stable: of those at one time the first given stands above."""
    return sorted(events, key=lambda event: event.at, reverse=True)
