"""Reads outages: the times in which Postgres or a Redis did not answer, as incidents tell them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core.round_trips import start_reading
from .models import EvidenceRecord
from .queries import IncidentRow, list_episodes, list_newest_of_class

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
    of_classes = [
        start_reading(session, list_newest_of_class, class_, _MOST_SERVERS) for class_ in OUTAGES
    ]
    of_incidents = [
        start_reading(session, _list_outages_of, incident, since)
        for listed in of_classes
        for incident in listed.value
        if incident.seen_at >= since
    ]
    found = [outage for listed in of_incidents for outage in listed.value]
    return sorted(found, key=lambda outage: outage.since)


def _list_outages_of(
    session: Session, incident: IncidentRow, since: datetime
) -> Sequence[ServerOutage]:
    tell = _of_postgres if incident.class_ == "postgres_away" else _of_redis
    return list(tell(session, incident, since))


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
