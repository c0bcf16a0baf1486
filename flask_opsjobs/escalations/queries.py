"""Reads escalations for pages and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from .models import EscalationRecord

MOST_SHOWN = 50


@dataclass(frozen=True)
class EscalationRow:
    """An escalation as stored: an event of an episode, and what came of the call."""

    id: int
    incident_id: int
    episode: int
    event: str
    state: str
    job_id: int | None
    decided_at: datetime
    ended_at: datetime | None
    reference: str | None
    why: str | None
    repair: Mapping[str, Any] | None

    @property
    def at(self) -> datetime:
        """When it ended; while it has not, when it was decided."""
        return self.ended_at or self.decided_at


_COLUMNS = [getattr(EscalationRecord, each.name) for each in fields(EscalationRow)]


def list_escalations(session: Session, incident: int) -> Sequence[EscalationRow]:
    """The last escalations of an incident, of all its episodes, the newest first."""
    chosen = (
        select(*_COLUMNS)
        .where(EscalationRecord.incident_id == incident)
        .order_by(EscalationRecord.id.desc())
        .limit(MOST_SHOWN)
    )
    return [EscalationRow(*row) for row in session.execute(chosen)]


def find_last_escalations(
    session: Session, episodes: Mapping[int, int]
) -> Mapping[int, EscalationRow]:
    """The last escalation of each of these incidents in its present episode, by incident.

    `episodes` are those by incident.
    """
    if not episodes:
        return {}
    present = tuple_(EscalationRecord.incident_id, EscalationRecord.episode)
    newest = (
        select(func.max(EscalationRecord.id))
        .where(present.in_(list(episodes.items())))
        .group_by(EscalationRecord.incident_id)
    )
    rows = session.execute(select(*_COLUMNS).where(EscalationRecord.id.in_(newest)))
    return {row.incident_id: EscalationRow(*row) for row in rows}
