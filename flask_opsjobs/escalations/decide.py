"""Decides which event of an incident the escalation policy is told of now: the quiet rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..lifeline.lifecycle import SEVERITIES
from .lifecycle import ENDING, TELLING

REMIND_AFTER = timedelta(hours=1)
FLAP_WITHIN = timedelta(hours=1)
FLAPS = 3
# The incident that says that an escalation failed: to escalate it would fail in the same way, and so on.
NEVER = "escalation_failed"


@dataclass(frozen=True)
class IncidentToEscalate:
    """What the decision about an incident needs.

    `told` holds the events of its episode with their states, `told_at` when the first one was decided, and
    `flapped_at` when an episode of it was told as flapping last. `episodes` counts those that began within
    the hour. `is_repaired`: an action that repairs its class was done in this episode.
    """

    class_: str
    severity: str
    state: str
    has_cause: bool = False
    told: Mapping[str, str] = field(default_factory=dict)
    told_at: datetime | None = None
    episodes: int = 1
    flapped_at: datetime | None = None
    is_repaired: bool = False


def choose_event(incident: IncidentToEscalate, escalate_from: str, now: datetime) -> str | None:
    """The event to tell now; None when there is nothing to tell, or nothing yet."""
    if incident.class_ == NEVER:
        return None
    if incident.state == "resolved":
        return _decide_end(incident)
    is_severe = SEVERITIES.index(incident.severity) <= SEVERITIES.index(escalate_from)
    if not is_severe or incident.state == "acknowledged" or incident.has_cause:
        return None
    if incident.told.keys() & set(TELLING):
        return _decide_reminder(incident, now)
    if incident.flapped_at is not None and now - incident.flapped_at < FLAP_WITHIN:
        return None
    return "flapping" if incident.episodes >= FLAPS else "opened"


def _decide_end(incident: IncidentToEscalate) -> str | None:
    was_invoked = any(incident.told.get(event) == "invoked" for event in TELLING)
    if not was_invoked or incident.told.keys() & set(ENDING):
        return None
    return "repaired" if incident.is_repaired else "resolved"


def _decide_reminder(incident: IncidentToEscalate, now: datetime) -> str | None:
    if "reminded" in incident.told or incident.told_at is None:
        return None
    return "reminded" if now - incident.told_at >= REMIND_AFTER else None
