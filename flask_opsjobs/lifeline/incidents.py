"""Makes incidents of findings: opens, refreshes, reopens and clears them, and keeps their evidence."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from .. import signals
from ..core import sql
from ..core.db import Connection
from .detectors import DETECTORS, detector_of
from .finding import Detector, DetectorPass, Finding, Observation, Words, fingerprint_of
from .lifecycle import ACTIVE, SEVERITIES

_log = logging.getLogger("flask_opsjobs.lifeline")
# So many complete passes without a finding clear its incident.
PASSES_TO_CLEAR = 2
# At most so many incidents of one class are active. Further findings wait until some have ended.
MOST_ACTIVE = 500
# A finding that is not open yet and was not seen for so long has to begin again.
_PENDING_SPAN = timedelta(minutes=2)
# An incident that no complete pass could look for is given up after so long.
_EXPIRES_AFTER = timedelta(days=1)
# An episode keeps so many of its first rows and of its newest rows of evidence.
FIRST_ROWS, NEWEST_ROWS = 20, 80


class NewEvidence(NamedTuple):
    """What was seen of an incident in one of its episodes, and when.

    `audit_sequence` is the row of the audit when it is a decision.
    """

    incident_id: int
    episode: int
    at: datetime
    seen: Observation
    audit_sequence: int | None = None


@dataclass(frozen=True)
class IncidentNews:
    """An incident that was opened, reopened or resolved, for the log and for receivers of signals."""

    id: int
    class_: str
    subject: str
    severity: str
    episode: int
    title: str


@dataclass(frozen=True)
class Applied:
    """What became of the findings of a pass."""

    opened: Sequence[IncidentNews] = ()
    reopened: Sequence[IncidentNews] = ()
    resolved: Sequence[IncidentNews] = ()

    def __add__(self, other: Applied) -> Applied:
        return Applied(
            (*self.opened, *other.opened),
            (*self.reopened, *other.reopened),
            (*self.resolved, *other.resolved),
        )

    def __bool__(self) -> bool:
        return bool(self.opened or self.reopened or self.resolved)


@dataclass(frozen=True)
class StoredIncident:
    """The row of an incident, locked, as far as a pass decides by it."""

    id: int
    fingerprint: str
    subject: str
    severity: str
    state: str
    episode: int
    first_at: datetime
    opened_at: datetime
    seen_at: datetime
    missed_passes: int
    affected: int
    facts: Mapping[str, Any]
    acknowledged_until: datetime | None
    acknowledged_severity: str | None
    acknowledged_affected: int | None
    resolved_at: datetime | None
    because_of: int | None

    @property
    def is_active(self) -> bool:
        """Whether it is not resolved."""
        return self.state in ACTIVE


@dataclass
class _Changes:
    """What a pass writes, decided before anything is written."""

    to_open: list[tuple[Finding, datetime]] = field(default_factory=list)
    to_reopen: list[tuple[StoredIncident, Finding, datetime]] = field(default_factory=list)
    to_refresh: list[tuple[StoredIncident, Finding]] = field(default_factory=list)
    to_lapse: list[StoredIncident] = field(default_factory=list)
    missed: list[StoredIncident] = field(default_factory=list)
    to_resolve: list[tuple[StoredIncident, str]] = field(default_factory=list)
    still_pending: list[tuple[str, datetime]] = field(default_factory=list)
    no_longer_pending: list[str] = field(default_factory=list)


def words_of(class_: str, facts: Mapping[str, Any]) -> Words:
    """How an incident of this class with these facts is shown, also when another version wrote the facts."""
    detector = detector_of(class_)
    try:
        return detector.say(facts)
    except (LookupError, TypeError, ValueError):
        return Words(
            title=f"{detector.title}: facts of another version",
            why="Another version of flask-opsjobs wrote its facts, and this one cannot read them.",
            next_step="Read its evidence. The next look that finds it writes its facts anew.",
        )


def list_classes_at_work(connection: Connection) -> set[str]:
    """The classes of which a pass without findings changes something: an incident, or a pending finding."""
    return {class_ for (class_,) in connection.execute(sql.load("list_classes_at_work"))}


def apply_pass(
    connection: Connection, class_: str, detector_pass: DetectorPass, now: datetime
) -> Applied:
    """Make incidents of what one look at a class found. The caller commits, then calls `announce`.

    Locks the incidents of the class, by fingerprint: after jobs and lanes, before the head of the audit. A
    caller that applies several classes does so in the order of their names. Raises `KeyError` for a class
    that no detector declares, and `ValueError` when a subject is found twice.
    """
    detector = DETECTORS[class_]
    findings = _by_fingerprint(class_, detector_pass.findings)
    stored = _lock(connection, class_, findings)
    pending = _read_pending(connection, class_)
    if not (findings or stored or pending):
        return Applied()
    changes = _decide(detector, findings, detector_pass.is_complete, stored, pending, now)
    return _write(connection, detector, changes, now)


def _by_fingerprint(class_: str, findings: Iterable[Finding]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for finding in findings:
        fingerprint = fingerprint_of(class_, finding.subject)
        if fingerprint in found:
            raise ValueError(f"{class_} found {finding.subject} twice in one pass")
        found[fingerprint] = finding
    return dict(sorted(found.items()))


def _lock(
    connection: Connection, class_: str, fingerprints: Iterable[str]
) -> dict[str, StoredIncident]:
    with connection.cursor(row_factory=class_row(StoredIncident)) as cursor:
        found = cursor.execute(
            sql.load("lock_incidents_of_class"),
            {"class": class_, "fingerprints": list(fingerprints)},
        )
        return {incident.fingerprint: incident for incident in found}


def _read_pending(connection: Connection, class_: str) -> dict[str, tuple[datetime, datetime]]:
    """For each pending finding of the class, when it was first and last seen."""
    rows = connection.execute(sql.load("list_pending_findings"), {"class": class_})
    return {fingerprint: (first_at, seen_at) for fingerprint, first_at, seen_at in rows}


# --- decide


def _decide(
    detector: Detector,
    findings: Mapping[str, Finding],
    is_complete: bool,
    stored: Mapping[str, StoredIncident],
    pending: Mapping[str, tuple[datetime, datetime]],
    now: datetime,
) -> _Changes:
    """Decide what becomes of each finding, incident and pending finding. Reads and writes nothing."""
    changes = _Changes()
    room = MOST_ACTIVE - sum(incident.is_active for incident in stored.values())
    for fingerprint, finding in findings.items():
        incident = stored.get(fingerprint)
        if incident is not None and incident.is_active:
            changes.to_refresh.append((incident, finding))
        elif _begin(detector, changes, finding, incident, pending.get(fingerprint), now, room > 0):
            room -= 1
    for fingerprint, incident in stored.items():
        if incident.is_active and fingerprint not in findings:
            _miss(detector, changes, incident, is_complete, now)
    kept = {fingerprint for fingerprint, _ in changes.still_pending}
    changes.no_longer_pending = [
        each for each in pending if each not in kept and (is_complete or each in findings)
    ]
    return changes


def _begin(
    detector: Detector,
    changes: _Changes,
    finding: Finding,
    incident: StoredIncident | None,
    pending: tuple[datetime, datetime] | None,
    now: datetime,
    has_room: bool,
) -> bool:
    """Open or reopen an incident if it has been so for long enough, else keep the finding as pending."""
    since = _since(finding, pending, now)
    if incident is not None and incident.resolved_at is not None and since <= incident.resolved_at:
        # It began in the last episode, which ended; so it began again when it was first found since.
        since = _since(replace(finding, since=None), pending, now)
    if now - since < detector.open_after or not has_room:
        changes.still_pending.append((fingerprint_of(detector.class_, finding.subject), since))
        return False
    if incident is None:
        changes.to_open.append((finding, since))
    else:
        assert incident.resolved_at is not None
        changes.to_reopen.append((incident, finding, max(since, incident.resolved_at)))
    return True


def _since(finding: Finding, pending: tuple[datetime, datetime] | None, now: datetime) -> datetime:
    if finding.since is not None:
        return min(finding.since, now)
    if pending is None:
        return now
    first_at, seen_at = pending
    # Also when the clock was set back: then the times cannot be compared.
    return first_at if timedelta() <= now - seen_at <= _PENDING_SPAN else now


def _miss(
    detector: Detector,
    changes: _Changes,
    incident: StoredIncident,
    is_complete: bool,
    now: datetime,
) -> None:
    """Decide about an active incident that was not found: it is counted, cleared, or given up."""
    quiet = now - incident.seen_at
    if is_complete:
        if incident.missed_passes + 1 >= PASSES_TO_CLEAR and quiet >= detector.quiet_after:
            changes.to_resolve.append((incident, "cleared"))
            return
        changes.missed.append(incident)
    elif quiet >= _EXPIRES_AFTER:
        changes.to_resolve.append((incident, "expired"))
        return
    if _has_lapsed(incident, None, detector, now):
        changes.to_lapse.append(incident)


def _has_lapsed(
    incident: StoredIncident, finding: Finding | None, detector: Detector, now: datetime
) -> bool:
    """Whether an acknowledgement has ended: by its time, or because the incident got worse."""
    if incident.acknowledged_until is None:
        return False
    if now >= incident.acknowledged_until:
        return True
    if finding is None:
        return False
    assert incident.acknowledged_severity is not None
    assert incident.acknowledged_affected is not None
    severity = finding.severity or detector.severity
    rose = SEVERITIES.index(severity) < SEVERITIES.index(incident.acknowledged_severity)
    return rose or finding.affected >= 2 * max(incident.acknowledged_affected, 1)


# --- write


def _write(connection: Connection, detector: Detector, changes: _Changes, now: datetime) -> Applied:
    changes.to_lapse += [
        incident
        for incident, finding in changes.to_refresh
        if _has_lapsed(incident, finding, detector, now)
    ]
    _write_pending(connection, detector.class_, changes, now)
    cause = _find_cause(connection, detector.class_) if _begins(changes) else None
    evidence: list[NewEvidence] = []
    opened = _open(connection, detector, changes.to_open, cause, now, evidence)
    reopened = _reopen(connection, detector, changes.to_reopen, cause, now, evidence)
    for news in (*opened, *reopened) if detector.hides else ():
        hidden = {"cause": news.id, "classes": list(detector.hides)}
        connection.execute(sql.load("hide_incidents"), hidden)
    _refresh(connection, detector, changes.to_refresh, now, evidence)
    _lapse(connection, changes.to_lapse, now, evidence)
    if changes.missed:
        ids = [incident.id for incident in changes.missed]
        connection.execute(sql.load("count_missed_passes"), {"ids": ids, "now": now})
    resolved = _resolve(connection, detector, changes.to_resolve, now, evidence)
    keep_evidence(connection, evidence)
    return Applied(opened, reopened, resolved)


def _begins(changes: _Changes) -> bool:
    return bool(changes.to_open or changes.to_reopen)


def _write_pending(connection: Connection, class_: str, changes: _Changes, now: datetime) -> None:
    if changes.still_pending:
        values = {
            "fingerprints": [fingerprint for fingerprint, _ in changes.still_pending],
            "first_ats": [first_at for _, first_at in changes.still_pending],
            "class": class_,
            "now": now,
        }
        connection.execute(sql.load("keep_pending_findings"), values)
    if changes.no_longer_pending:
        gone = {"fingerprints": changes.no_longer_pending}
        connection.execute(sql.load("delete_pending_findings"), gone)


def _find_cause(connection: Connection, class_: str) -> int | None:
    """The oldest active incident from which a new one of this class follows."""
    classes = [name for name, detector in DETECTORS.items() if class_ in detector.hides]
    if not classes:
        return None
    row = connection.execute(sql.load("find_hiding_incident"), {"classes": classes}).fetchone()
    return None if row is None else row[0]


def _open(
    connection: Connection,
    detector: Detector,
    to_open: Sequence[tuple[Finding, datetime]],
    cause: int | None,
    now: datetime,
    evidence: list[NewEvidence],
) -> list[IncidentNews]:
    if not to_open:
        return []
    values = {
        **_columns(detector, [finding for finding, _ in to_open]),
        "class": detector.class_,
        "subjects": [finding.subject for finding, _ in to_open],
        "fingerprints": [fingerprint_of(detector.class_, each.subject) for each, _ in to_open],
        "opened_ats": [since for _, since in to_open],
        "because_of": cause,
        "now": now,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        # Another pass may have opened the same one since the look: it refreshes that one next time.
        rows = cursor.execute(sql.load("open_incidents"), values).fetchall()
    by_subject = {row["subject"]: row["id"] for row in rows}
    news = []
    for finding, since in to_open:
        if (id_ := by_subject.get(finding.subject)) is not None:
            evidence += _evidence_of(id_, 1, finding, detector, now, "opened", since)
            news.append(_news(id_, detector, finding, 1))
    return news


def _reopen(
    connection: Connection,
    detector: Detector,
    to_reopen: Sequence[tuple[StoredIncident, Finding, datetime]],
    cause: int | None,
    now: datetime,
    evidence: list[NewEvidence],
) -> list[IncidentNews]:
    if not to_reopen:
        return []
    values = {
        **_columns(detector, [finding for _, finding, _ in to_reopen]),
        "ids": [incident.id for incident, _, _ in to_reopen],
        "opened_ats": [since for _, _, since in to_reopen],
        "because_of": cause,
        "now": now,
    }
    connection.execute(sql.load("reopen_incidents"), values)
    news = []
    for incident, finding, since in to_reopen:
        episode = incident.episode + 1
        evidence += _evidence_of(incident.id, episode, finding, detector, now, "reopened", since)
        news.append(_news(incident.id, detector, finding, episode))
    return news


def _refresh(
    connection: Connection,
    detector: Detector,
    to_refresh: Sequence[tuple[StoredIncident, Finding]],
    now: datetime,
    evidence: list[NewEvidence],
) -> None:
    if not to_refresh:
        return
    values = {
        **_columns(detector, [finding for _, finding in to_refresh]),
        "ids": [incident.id for incident, _ in to_refresh],
        "now": now,
    }
    connection.execute(sql.load("refresh_incidents"), values)
    for incident, finding in to_refresh:
        evidence += [
            NewEvidence(incident.id, incident.episode, now, each) for each in finding.evidence
        ]


def _columns(detector: Detector, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "severities": [finding.severity or detector.severity for finding in findings],
        "affected": [finding.affected for finding in findings],
        "facts": [Jsonb(dict(finding.facts)) for finding in findings],
    }


def _lapse(
    connection: Connection,
    to_lapse: Sequence[StoredIncident],
    now: datetime,
    evidence: list[NewEvidence],
) -> None:
    if to_lapse:
        ids = [incident.id for incident in to_lapse]
        connection.execute(sql.load("lapse_acknowledgements"), {"ids": ids})
    for incident in to_lapse:
        is_due = incident.acknowledged_until is not None and now >= incident.acknowledged_until
        why = "its time is over" if is_due else "it got worse"
        lapsed = Observation("lapsed", "detect", {"why": why})
        evidence.append(NewEvidence(incident.id, incident.episode, now, lapsed))


def _resolve(
    connection: Connection,
    detector: Detector,
    to_resolve: Sequence[tuple[StoredIncident, str]],
    now: datetime,
    evidence: list[NewEvidence],
) -> list[IncidentNews]:
    if not to_resolve:
        return []
    values = {
        "ids": [incident.id for incident, _ in to_resolve],
        "bys": [by for _, by in to_resolve],
        "now": now,
    }
    connection.execute(sql.load("resolve_incidents"), values)
    for incident, by in to_resolve:
        ended = Observation("resolved", detector.found_by, {"by": by})
        evidence.append(NewEvidence(incident.id, incident.episode, now, ended))
    return [
        IncidentNews(
            incident.id,
            detector.class_,
            incident.subject,
            incident.severity,
            incident.episode,
            words_of(detector.class_, incident.facts).title,
        )
        for incident, _ in to_resolve
    ]


def _news(id_: int, detector: Detector, finding: Finding, episode: int) -> IncidentNews:
    severity = finding.severity or detector.severity
    title = detector.say(finding.facts).title
    return IncidentNews(id_, detector.class_, finding.subject, severity, episode, title)


# --- evidence


def _evidence_of(
    id_: int,
    episode: int,
    finding: Finding,
    detector: Detector,
    now: datetime,
    kind: str,
    since: datetime,
) -> list[NewEvidence]:
    """The evidence of an episode that begins: since when, how severe, and what the detector saw."""
    facts = {"severity": finding.severity or detector.severity, "affected": finding.affected}
    begun = Observation(kind, detector.found_by, facts)
    return [
        NewEvidence(id_, episode, since, begun),
        *(NewEvidence(id_, episode, now, each) for each in finding.evidence),
    ]


def keep_evidence(connection: Connection, evidence: Sequence[NewEvidence]) -> None:
    """Keep what was seen. The caller has locked the incidents.

    An observation that equals the newest one of its kind is counted there; a decision equals no other. An
    episode keeps its first and its newest rows; the rows between become one that says how many they were.
    """
    if not evidence:
        return
    values = {
        "incidents": [each.incident_id for each in evidence],
        "episodes": [each.episode for each in evidence],
        "ats": [each.at for each in evidence],
        "kinds": [each.seen.kind for each in evidence],
        "sources": [each.seen.source for each in evidence],
        "facts": [Jsonb(dict(each.seen.facts)) for each in evidence],
        "audit_sequences": [each.audit_sequence for each in evidence],
    }
    rows = connection.execute(sql.load("keep_evidence"), values).fetchall()
    if added := sorted({(incident, episode) for incident, episode in rows}):
        connection.execute(
            sql.load("fold_evidence"),
            {
                "incidents": [incident for incident, _ in added],
                "episodes": [episode for _, episode in added],
                "first": FIRST_ROWS,
                "newest": NEWEST_ROWS,
            },
        )


# --- after the commit


def announce(sender: object, applied: Applied) -> None:
    """Log what was opened, reopened and resolved, and send the signals. Call it after the commit."""
    told = (
        (signals.incident_opened, "opened", applied.opened),
        (signals.incident_reopened, "reopened", applied.reopened),
        (signals.incident_resolved, "resolved", applied.resolved),
    )
    for signal, word, incidents in told:
        for news in incidents:
            level = logging.WARNING if news.severity != "notice" else logging.INFO
            _log.log(level, "incident %d %s (%s): %s", news.id, word, news.severity, news.title)
            signals.send(
                signal,
                sender,
                incident=news.id,
                class_=news.class_,
                subject=news.subject,
                severity=news.severity,
                episode=news.episode,
                title=news.title,
            )
