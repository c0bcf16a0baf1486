"""Reads incidents for pages and commands: a list, one with its evidence, and what changed before it began."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, not_, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from ..audit.models import AuditEvent
from ..core.round_trips import start_reading
from ..core.words import counted
from ..failures.models import Deploy
from ..jobs.models import Job
from ..jobs.rows import Count
from ..workers.models import Worker
from .detectors import DETECTORS, detector_of
from .finding import fingerprint_of
from .incidents import words_of
from .lifecycle import ACTIVE, SEVERITIES
from .models import EvidenceRecord, IncidentRecord

MOST_INCIDENTS = 50
# Of an episode so many rows are stored, and one that says what was folded.
MOST_EVIDENCE = 120
MOST_EPISODES = 50
MOST_CHANGES = 50
# A time in the facts of evidence, as it is stored.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
MOST_FOLLOWERS = 20
# Incidents that have ended, and adopted jobs, are counted up to this.
MOST_COUNTED = 1_000
# The decisions before an incident are looked for among so many newest ones.
MOST_DECISIONS = 2_000
# What happened so long before an incident may have caused it.
BEFORE = timedelta(minutes=30)
_ENDS = {
    "cleared": "It cleared by itself",
    "operator": "A person resolved it",
    "expired": "Nobody could look for it for a day, so it was closed",
}


@dataclass(frozen=True)
class IncidentFilter:
    """Which incidents a list shows. An empty part does not restrict it.

    The state `active` stands for every one but resolved.
    """

    class_: str = ""
    severity: str = ""
    state: str = ""


@dataclass(frozen=True)
class IncidentRow:
    """An incident as stored. `has_cause`: it follows from another one that is still active."""

    id: int
    class_: str
    subject: str
    severity: str
    state: str
    episode: int
    first_at: datetime
    opened_at: datetime
    seen_at: datetime
    seen_count: int
    missed_passes: int
    affected: int
    facts: Mapping[str, Any]
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    acknowledged_until: datetime | None
    acknowledged_reason: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    because_of: int | None
    deploy_id: int | None
    has_cause: bool

    @property
    def title(self) -> str:
        """What is wrong, in a few words."""
        return words_of(self.class_, self.facts).title

    @property
    def why(self) -> str:
        """Why it is wrong, in a sentence or two."""
        return words_of(self.class_, self.facts).why

    @property
    def next_step(self) -> str:
        """What a person does next; empty when the repairs say it."""
        return words_of(self.class_, self.facts).next_step

    @property
    def affects(self) -> str:
        """How many of what it affects, as `4 jobs`; empty when that is not counted."""
        if not self.affected:
            return ""
        more = "+" if self.facts.get("is_least") else ""
        return counted(self.affected, *detector_of(self.class_).affects, more=more)

    @property
    def how_it_ended(self) -> str:
        """How one that is resolved ended, before the time; empty while it is active."""
        return _ENDS.get(self.resolved_by or "", "")

    @property
    def is_active(self) -> bool:
        """Whether it is not resolved."""
        return self.state in ACTIVE

    @property
    def is_still_true(self) -> bool:
        """Whether the last complete pass that looked for it found it. Nobody looks for an unknown class."""
        return self.is_active and self.class_ in DETECTORS and self.missed_passes == 0


@dataclass(frozen=True)
class IncidentPage:
    """A page of incidents, the newest first. `older` is where the next page begins, None at the end."""

    rows: Sequence[IncidentRow]
    older: tuple[datetime, int] | None


@dataclass(frozen=True)
class EvidenceRow:
    """What was seen of an incident, by whom and how often in a row."""

    id: int
    episode: int
    kind: str
    first_at: datetime
    last_at: datetime
    count: int
    source: str
    facts: Mapping[str, Any]
    audit_sequence: int | None

    @property
    def known_facts(self) -> Iterator[tuple[str, str | datetime]]:
        """What was seen, by name: times as such, anything else as text. Leaves out what is not known."""
        for name, value in self.facts.items():
            if isinstance(value, str) and _TIME.fullmatch(value):
                yield name, datetime.fromisoformat(value)
            elif isinstance(value, bool):
                yield name, "yes" if value else "no"
            elif isinstance(value, list):
                yield name, ", ".join(map(str, value)) or "none"
            elif value is not None:
                yield name, str(value)


@dataclass(frozen=True)
class EpisodeRow:
    """One episode of an incident.

    `ended_at` is None while it goes on, and when its end is no longer stored.
    """

    number: int
    began_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    observations: int


@dataclass(frozen=True)
class ChangeRow:
    """Something that changed: a worker started or stopped, a deploy, or a decision of a person or the system.

    `kind` is `worker_started`, `worker_stopped`, `worker_missing`, `deploy` or `decision`. `what` is the
    worker's name, the version or the action. `audit_sequence` is that of a decision.
    """

    at: datetime
    kind: str
    what: str
    by: str
    subject: str
    reason: str | None
    audit_sequence: int | None


@dataclass(frozen=True)
class IncidentCounts:
    """How many incidents are active. `open` is by severity, without those that follow from an active one."""

    open: Mapping[str, int]
    following: int
    acknowledged: int

    @property
    def unattended(self) -> int:
        """How many need a person: open critical ones and warnings. Notices do not count."""
        return self.open["critical"] + self.open["warning"]


@dataclass(frozen=True)
class AdoptedCount:
    """How many plain RQ jobs have rows of ours, in all, and how many of them have not ended."""

    stored: Count
    live: Count


@dataclass(frozen=True)
class Repaired:
    """How many incidents of a class ended by themselves, and how many jobs or things they were about."""

    class_: str
    incidents: int
    affected: int


_CAUSE = aliased(IncidentRecord)
_HAS_CAUSE: ColumnElement[bool] = (
    select(_CAUSE.id)
    .where(_CAUSE.id == IncidentRecord.because_of, _CAUSE.state.in_(ACTIVE))
    .exists()
)
_ROW: tuple[Any, ...] = (
    *(getattr(IncidentRecord, each.name) for each in fields(IncidentRow)[:-1]),
    _HAS_CAUSE,
)
_IS_ACTIVE: ColumnElement[bool] = IncidentRecord.state != "resolved"
_HAS_NO_CAUSE: ColumnElement[bool] = or_(IncidentRecord.because_of.is_(None), not_(_HAS_CAUSE))
# The worst first.
_by_severity: ColumnElement[int] = case(
    {severity: rank for rank, severity in enumerate(SEVERITIES)}, value=IncidentRecord.severity
)


def page_of_incidents(
    session: Session,
    wanted: IncidentFilter,
    *,
    older_than: tuple[datetime, int] | None = None,
    limit: int = MOST_INCIDENTS,
) -> IncidentPage:
    """A page of the incidents that began last. `older_than` is the `older` of the page before."""
    chosen = select(*_ROW).where(*_conditions(wanted))
    if older_than is not None:
        chosen = chosen.where(
            tuple_(IncidentRecord.opened_at, IncidentRecord.id) < tuple_(*older_than)
        )
    newest = chosen.order_by(IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
    rows = [IncidentRow(*row) for row in session.execute(newest.limit(limit + 1))]
    more = len(rows) > limit
    rows = rows[:limit]
    return IncidentPage(rows, (rows[-1].opened_at, rows[-1].id) if more else None)


def _conditions(wanted: IncidentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.class_:
        conditions.append(IncidentRecord.class_ == wanted.class_)
    if wanted.severity:
        conditions.append(IncidentRecord.severity == wanted.severity)
    if wanted.state == "active":
        conditions.append(_IS_ACTIVE)
    elif wanted.state:
        conditions.append(IncidentRecord.state == wanted.state)
        if wanted.state != "resolved":
            conditions.append(_IS_ACTIVE)
    return conditions


def page_of_open_incidents(
    session: Session,
    wanted: IncidentFilter,
    *,
    after: tuple[str, datetime, int] | None = None,
    limit: int = MOST_INCIDENTS,
) -> tuple[Sequence[IncidentRow], bool]:
    """The open incidents without an active cause, the worst first, then the newest; and whether more follow.

    Notices only when the filter names them. `after` is severity, opening and id of the last row of the page
    before. The state of the filter does not matter.
    """
    severities = (wanted.severity,) if wanted.severity else ("critical", "warning")
    chosen = select(*_ROW).where(
        _IS_ACTIVE,
        IncidentRecord.state == "open",
        IncidentRecord.severity.in_(severities),
        _HAS_NO_CAUSE,
    )
    if wanted.class_:
        chosen = chosen.where(IncidentRecord.class_ == wanted.class_)
    if after is not None:
        severity, opened_at, id_ = after
        rank = SEVERITIES.index(severity)
        chosen = chosen.where(
            or_(
                _by_severity > rank,
                and_(
                    _by_severity == rank,
                    tuple_(IncidentRecord.opened_at, IncidentRecord.id) < tuple_(opened_at, id_),
                ),
            )
        )
    worst = chosen.order_by(_by_severity, IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
    rows = [IncidentRow(*row) for row in session.execute(worst.limit(limit + 1))]
    return rows[:limit], len(rows) > limit


def list_following(session: Session) -> Sequence[IncidentRow]:
    """The open incidents that follow from another active one, the newest first, at most 20."""
    chosen = (
        select(*_ROW)
        .where(_IS_ACTIVE, IncidentRecord.state == "open", _HAS_CAUSE)
        .order_by(IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
        .limit(MOST_FOLLOWERS)
    )
    return [IncidentRow(*row) for row in session.execute(chosen)]


def list_active_ids(session: Session) -> Sequence[int]:
    """The ids of the newest incidents that are not resolved."""
    newest = select(IncidentRecord.id).where(_IS_ACTIVE).order_by(IncidentRecord.id.desc())
    return list(session.scalars(newest.limit(MOST_FOLLOWERS)))


def find_incident(session: Session, incident_id: int) -> IncidentRow | None:
    """The incident with this id; None when there is none, or no more."""
    found = session.execute(select(*_ROW).where(IncidentRecord.id == incident_id))
    row = found.one_or_none()
    return None if row is None else IncidentRow(*row)


def has_newer_incident(session: Session, incident_id: int) -> bool:
    """Whether an incident with a greater id is stored: then this id was given out once."""
    newer = select(IncidentRecord.id).where(IncidentRecord.id > incident_id).limit(1)
    return session.scalars(newer).first() is not None


def list_incidents_about(session: Session, subject: str) -> Sequence[IncidentRow]:
    """The incidents about a subject, one of each class at most, the one that opened last first."""
    fingerprints = [fingerprint_of(class_, subject) for class_ in DETECTORS]
    chosen = select(*_ROW).where(IncidentRecord.fingerprint.in_(fingerprints))
    rows = [IncidentRow(*row) for row in session.execute(chosen.limit(len(fingerprints)))]
    return sorted(rows, key=lambda row: row.opened_at, reverse=True)


def list_newest_of_class(session: Session, class_: str, limit: int) -> Sequence[IncidentRow]:
    """The incidents of a class, those that opened last first."""
    chosen = (
        select(*_ROW)
        .where(IncidentRecord.class_ == class_)
        .order_by(IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
        .limit(limit)
    )
    return [IncidentRow(*row) for row in session.execute(chosen)]


def list_followers(session: Session, incident_id: int) -> Sequence[IncidentRow]:
    """The active incidents that follow from this one, the newest first."""
    chosen = (
        select(*_ROW)
        .where(_IS_ACTIVE, IncidentRecord.because_of == incident_id)
        .order_by(IncidentRecord.opened_at.desc(), IncidentRecord.id.desc())
        .limit(MOST_FOLLOWERS)
    )
    return [IncidentRow(*row) for row in session.execute(chosen)]


def list_evidence(session: Session, incident_id: int, episode: int) -> Sequence[EvidenceRow]:
    """The evidence of one episode, in the order in which it was first seen."""
    columns = [getattr(EvidenceRecord, each.name) for each in fields(EvidenceRow)]
    chosen = (
        select(*columns)
        .where(EvidenceRecord.incident_id == incident_id, EvidenceRecord.episode == episode)
        .order_by(EvidenceRecord.id)
        .limit(MOST_EVIDENCE)
    )
    rows = [EvidenceRow(*row) for row in session.execute(chosen)]
    return sorted(rows, key=lambda row: (row.first_at, row.id))


def list_episodes(session: Session, incident: IncidentRow) -> Sequence[EpisodeRow]:
    """The last episodes of an incident, the oldest first, as far as their evidence is stored."""
    is_end = EvidenceRecord.kind == "resolved"
    chosen = (
        select(
            EvidenceRecord.episode,
            func.min(EvidenceRecord.first_at),
            func.max(EvidenceRecord.last_at).filter(is_end),
            func.max(EvidenceRecord.facts["by"].astext).filter(is_end),
            func.sum(EvidenceRecord.count),
        )
        .where(
            EvidenceRecord.incident_id == incident.id,
            EvidenceRecord.episode > incident.episode - MOST_EPISODES,
        )
        .group_by(EvidenceRecord.episode)
        .order_by(EvidenceRecord.episode)
    )
    return [EpisodeRow(*row) for row in session.execute(chosen)]


def list_changes_before(session: Session, incident: IncidentRow) -> Sequence[ChangeRow]:
    """What changed in the half hour before its first episode, and until this one began, newest first.

    At most the newest of each kind are listed, decisions among the newest 2,000 of the audit. Those that name
    the incident itself are left out.
    """
    since, until = incident.first_at - BEFORE, incident.opened_at
    kinds = [
        start_reading(session, _started_workers, since, until),
        start_reading(session, _ended_workers, since, until),
        start_reading(session, list_deploys_between, since, until),
        start_reading(session, _decisions, since, until, f"incident/{incident.id}"),
    ]
    found = [change for kind in kinds for change in kind.value]
    return sorted(found, key=lambda change: change.at, reverse=True)[:MOST_CHANGES]


def _started_workers(session: Session, since: datetime, until: datetime) -> list[ChangeRow]:
    chosen = (
        select(Worker.started_at, Worker.name, Worker.host, Worker.id)
        .where(Worker.started_at.between(since, until))
        .order_by(Worker.started_at.desc())
        .limit(MOST_CHANGES)
    )
    return [
        ChangeRow(at, "worker_started", name, host, f"worker/{id_}", None, None)
        for at, name, host, id_ in session.execute(chosen)
    ]


def _ended_workers(session: Session, since: datetime, until: datetime) -> list[ChangeRow]:
    # Those that started long ago too: retention keeps few workers that have ended.
    chosen = (
        select(Worker.ended_at, Worker.state, Worker.name, Worker.host, Worker.id)
        .where(Worker.ended_at.between(since, until))
        .order_by(Worker.ended_at.desc())
        .limit(MOST_CHANGES)
    )
    return [
        ChangeRow(at, f"worker_{state}", name, host, f"worker/{id_}", None, None)
        for at, state, name, host, id_ in session.execute(chosen)
        if at is not None
    ]


def list_deploys_between(session: Session, since: datetime, until: datetime) -> list[ChangeRow]:
    """The last 50 deploys within a span, the newest first."""
    chosen = (
        select(Deploy.at, Deploy.version, Deploy.actor, Deploy.source, Deploy.note, Deploy.id)
        .where(Deploy.at.between(since, until))
        .order_by(Deploy.id.desc())
        .limit(MOST_CHANGES)
    )
    return [
        ChangeRow(at, "deploy", version, actor or source, f"deploy/{id_}", note, None)
        for at, version, actor, source, note, id_ in session.execute(chosen)
    ]


def _decisions(session: Session, since: datetime, until: datetime, target: str) -> list[ChangeRow]:
    newest = (
        select(AuditEvent).order_by(AuditEvent.sequence.desc()).limit(MOST_DECISIONS).subquery()
    )
    event = aliased(AuditEvent, newest)
    chosen = (
        select(event.at, event.action, event.actor, event.subject, event.reason, event.sequence)
        .where(
            event.at.between(since, until),
            event.outcome == "done",
            not_(event.targets.contains([target])),
        )
        .order_by(event.sequence.desc())
        .limit(MOST_CHANGES)
    )
    return [
        ChangeRow(at, "decision", action, actor, subject, reason, sequence)
        for at, action, actor, subject, reason, sequence in session.execute(chosen)
    ]


def count_active_incidents(session: Session) -> IncidentCounts:
    """How many incidents are open, follow from another one, and are acknowledged."""
    chosen = (
        select(IncidentRecord.state, IncidentRecord.severity, _HAS_CAUSE, func.count())
        .where(_IS_ACTIVE)
        .group_by(IncidentRecord.state, IncidentRecord.severity, _HAS_CAUSE)
    )
    found: Counter[str] = Counter()
    for state, severity, has_cause, number in session.execute(chosen):
        found["following" if state == "open" and has_cause else state] += number
        if state == "open" and not has_cause:
            found[severity] += number
    by_severity = {severity: found[severity] for severity in SEVERITIES}
    return IncidentCounts(by_severity, found["following"], found["acknowledged"])


def count_ended(session: Session) -> Count:
    """How many incidents have ended, counted up to a limit."""
    return _count_up_to(
        session, select(IncidentRecord.id).where(IncidentRecord.resolved_at.is_not(None))
    )


def count_adopted(session: Session) -> AdoptedCount:
    """How many plain RQ jobs have rows of ours, each number up to a limit."""
    mine = select(Job.id).where(Job.origin == "rq")
    return AdoptedCount(
        _count_up_to(session, mine), _count_up_to(session, mine.where(Job.ended_at.is_(None)))
    )


def _count_up_to(session: Session, chosen: Select[Any]) -> Count:
    number = session.execute(
        select(func.count()).select_from(chosen.limit(MOST_COUNTED + 1).subquery())
    ).scalar_one()
    return count_up_to(number)


def count_up_to(number: int) -> Count:
    """What was counted up to one above the limit."""
    return Count(min(number, MOST_COUNTED), "at_least" if number > MOST_COUNTED else "exact")


def count_repaired(session: Session, since: datetime) -> Sequence[Repaired]:
    """How many notices ended by themselves since then, by class."""
    chosen = (
        select(IncidentRecord.class_, func.count(), func.sum(IncidentRecord.affected))
        .where(
            and_(IncidentRecord.resolved_at >= since, IncidentRecord.resolved_by == "cleared"),
            IncidentRecord.severity == "notice",
        )
        .group_by(IncidentRecord.class_)
        .order_by(IncidentRecord.class_)
    )
    return [Repaired(*row) for row in session.execute(chosen)]
