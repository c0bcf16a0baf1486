"""Tells a decision of the audit as an event of what it was about."""

from __future__ import annotations

from collections.abc import Collection

from ..core.history import Event
from .queries import EventRow

# The fact of a target, after a decision, that was left as it was; its value is the code of the reason.
SKIPPED = "skipped"


def tell_decision(event: EventRow, about: Collection[str] = ()) -> Event:
    """A decision of the audit: done, refused, or done to others and to none of the targets `about`."""
    action = event.action.partition(".")[2].replace("_", " ")
    refused = f"refused ({event.code})" if event.code else _say_skipped(event, about)
    text = f"{event.actor}: {action}{refused and f', {refused}'}"
    status = "refused" if refused else "seen"
    return Event(event.at, status, text, "operator", label=event.reason, audit=event.sequence)


def _say_skipped(event: EventRow, about: Collection[str]) -> str:
    after = event.after if isinstance(event.after, dict) else {}
    found = [after.get(target) for target in event.targets if target in about]
    codes = [one.get(SKIPPED) if isinstance(one, dict) else None for one in found]
    return f"{SKIPPED} ({codes[0]})" if codes and all(codes) else ""
