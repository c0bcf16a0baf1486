"""Tells a decision of the audit as an event of what it was about."""

from __future__ import annotations

from ..core.history import Event
from .queries import EventRow


def tell_decision(event: EventRow) -> Event:
    """A decision of the audit, done or refused."""
    action = event.action.partition(".")[2].replace("_", " ")
    text = f"{event.actor}: {action}{f', refused ({event.code})' if event.code else ''}"
    status = "refused" if event.outcome == "refused" else "seen"
    return Event(event.at, status, text, "operator", label=event.reason, audit=event.sequence)
