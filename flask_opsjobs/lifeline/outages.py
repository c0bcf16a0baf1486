"""Reads outages: the times in which Postgres or a Redis did not answer, as incidents tell them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from .models import EvidenceRecord, IncidentRecord
from .queries import IncidentRow, find_incident, list_episodes

OUTAGES = ("postgres_away", "redis_away")
# Of each class the incidents that opened last; each is about one server.
_MOST_SERVERS = 10
_MOST_OUTAGES = 100


@dataclass(frozen=True)
class ServerOutage:
    """A time in which a server did not answer. `until` is None while it lasts."""

    class_: str
    subject: str
    since: datetime
    until: datetime | None

    @property
    def says(self) -> str:
        """Which server did not answer, as a sentence without its full stop."""
        if self.class_ == "postgres_away":
            return "Postgres did not answer"
        return f"The Redis {self.subject.partition('/')[2]} did not answer"


def list_outages(session: Session, since: datetime) -> Sequence[ServerOutage]:
    """The outages that lasted into the time since then, the oldest first."""
    found: list[ServerOutage] = []
    for class_ in OUTAGES:
        newest = (
            select(IncidentRecord.id)
            .where(IncidentRecord.class_ == class_)
            .order_by(IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
            .limit(_MOST_SERVERS)
        )
        for id_ in session.scalars(newest).all():
            incident = find_incident(session, id_)
            if incident is not None and incident.seen_at >= since:
                tell = _of_postgres if class_ == "postgres_away" else _of_redis
                found += tell(session, incident, since)
    return sorted(found, key=lambda outage: outage.since)


def _of_postgres(
    session: Session, incident: IncidentRow, since: datetime
) -> Iterator[ServerOutage]:
    """Each outage is found when it is over: its evidence has both times."""
    chosen = (
        select(EvidenceRecord.facts)
        .where(
            EvidenceRecord.incident_id == incident.id,
            EvidenceRecord.kind == "outage",
            EvidenceRecord.last_at >= since,
        )
        .order_by(EvidenceRecord.episode.desc(), EvidenceRecord.id.desc())
        .limit(_MOST_OUTAGES)
    )
    for facts in session.scalars(chosen):
        began, ended = (datetime.fromisoformat(facts[name]) for name in ("began_at", "ended_at"))
        if ended >= since:
            yield ServerOutage(incident.class_, incident.subject, began, ended)


def _of_redis(session: Session, incident: IncidentRow, since: datetime) -> Iterator[ServerOutage]:
    for episode in list_episodes(session, incident):
        is_last = episode.number == incident.episode
        ended = incident.resolved_at if is_last else episode.ended_at or episode.began_at
        if ended is None or ended >= since:
            yield ServerOutage(incident.class_, incident.subject, episode.began_at, ended)
