"""Tells of an incident: its episodes and evidence, what changed before it began, and what repairs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ...actions.domain import name_in
from ...core.history import Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted, moment
from ...escalations.queries import EscalationRow, list_escalations
from ...lifeline import actions as incident_actions
from ...lifeline.detectors import DETECTORS, detector_of
from ...lifeline.queries import (
    MOST_CHANGES,
    MOST_EVIDENCE,
    ChangeRow,
    EpisodeRow,
    EvidenceRow,
    IncidentRow,
    find_incident,
    has_newer_incident,
    list_changes_before,
    list_episodes,
    list_evidence,
    list_followers,
)
from ...lifeline.repairs import repairs_of
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from ..paths import list_follow_ups, list_repairs

# The facts that name a subject.
_PLACES = ("queue", "worker", "cron", "limiter", "workflow", "batch", "failure", "task")
_MOST_JOBS = 20
# The word of a change before its name.
_CHANGES = {
    "worker_started": "Worker {} began",
    "worker_stopped": "Worker {} stopped",
    "worker_missing": "Worker {} was counted as missing",
}


def _read_key(key: str) -> str | None:
    target = incident_actions.read_target(f"incident/{key}")
    return None if target is None else name_in(target)


def _tell(inquiry: Inquiry) -> Told | None:
    session, incident_id = inquiry.session, int(inquiry.key)
    escalating = start_reading(session, list_escalations, incident_id)
    following = start_reading(session, list_followers, incident_id)
    incident = find_incident(session, incident_id)
    if incident is None:
        return None
    related = inquiry.start(_list_related, inquiry, incident, following)
    paths = inquiry.start(list_follow_ups, inquiry, [incident])
    repairs = repairs_of(incident.class_, incident.facts) if incident.is_active else ()
    repairing = inquiry.start(list_repairs, inquiry, repairs)
    listing = start_reading(session, list_episodes, incident)
    seeing = start_reading(session, list_evidence, incident.id, incident.episode)
    changes = list_changes_before(session, incident)
    episodes, evidence = listing.value, seeing.value
    may_audit = inquiry.may("audit.view")
    return Told(
        title=f"Incident {incident.id}: {incident.title}",
        state=incident.state,
        diagnosis=_diagnose(incident),
        since=min(incident.first_at, *(change.at for change in changes), incident.opened_at),
        until=incident.resolved_at or inquiry.now,
        events=[
            *_of_episodes(episodes),
            *_of_evidence(evidence, may_audit),
            *_of_escalations(escalating.value),
            *_of_changes(changes, may_audit),
        ],
        pieces=list(_list_pieces(incident, episodes, evidence)),
        watches=list(_list_watches(incident, inquiry.now)),
        evidence=[_make_evidence(evidence)],
        related=related,
        paths=paths,
        repairs=repairing,
        left_out=_list_left_out(evidence, changes),
    )


def _diagnose(incident: IncidentRow) -> str:
    if incident.resolved_at is not None:
        return f"{incident.title}. {incident.how_it_ended} at {moment(incident.resolved_at)}."
    if incident.acknowledged_by is not None:
        until = (
            f" until {moment(incident.acknowledged_until)}" if incident.acknowledged_until else ""
        )
        return f"{incident.title}. {incident.acknowledged_by} acknowledged it{until}."
    affects = f" It affects {incident.affects}." if incident.affects else ""
    return f"{incident.title}. {incident.why}{affects}"


def _of_episodes(episodes: Sequence[EpisodeRow]) -> Iterator[Event]:
    for episode in episodes:
        word = "Began" if episode.number == 1 else f"Began again, episode {episode.number}"
        yield Event(episode.began_at, "incident", word, "detector")
        if episode.ended_at is not None:
            how = episode.ended_by or "cleared"
            source = "operator" if how == "operator" else "detector"
            yield Event(episode.ended_at, "resolved", f"Ended: {how}", source)


def _of_evidence(evidence: Sequence[EvidenceRow], may_audit: bool) -> Iterator[Event]:
    """What was seen in the last episode. Its begin and end the episodes tell, decisions the audit."""
    for row in evidence:
        is_decision = row.audit_sequence is not None and may_audit
        if is_decision or row.kind in ("opened", "reopened", "resolved"):
            continue
        many = f", {row.count:,} times in a row" if row.count > 1 else ""
        yield Event(
            row.first_at,
            "seen",
            f"{row.kind.replace('_', ' ').capitalize()}{many}",
            row.source,
            until=row.last_at if row.count > 1 else None,
            audit=row.audit_sequence,
        )


def _of_escalations(rows: Sequence[EscalationRow]) -> Iterator[Event]:
    """Whom the host was told of what, as far as its policy answered."""
    for row in rows:
        if row.state == "pending":
            continue
        reference = f", reference {row.reference}" if row.reference else ""
        yield Event(
            row.at,
            "failed" if row.state == "failed" else "seen",
            f"Escalation, {row.event}: {row.state}{reference}",
            "loop escalate",
            label=row.why,
            subject=None if row.job_id is None else f"job/{row.job_id}",
        )


def _of_changes(changes: Sequence[ChangeRow], may_audit: bool) -> Iterator[Event]:
    """What changed before. Deploys are told of every timeline."""
    for change in changes:
        if change.kind == "deploy" or (change.kind == "decision" and not may_audit):
            continue
        if change.kind == "decision":
            text = f"{change.by}: {change.what.replace('.', ' ', 1)} {change.subject}"
            source = "operator"
        else:
            text, source = _CHANGES[change.kind].format(change.what), "worker"
        yield Event(
            change.at,
            "seen",
            text,
            "loop watch" if change.kind == "worker_missing" else source,
            label=change.reason,
            audit=change.audit_sequence,
            subject=f"worker/{change.what}" if change.kind in _CHANGES else change.subject,
        )


def _list_pieces(
    incident: IncidentRow, episodes: Sequence[EpisodeRow], evidence: Sequence[EvidenceRow]
) -> Iterator[Expected]:
    """An episode is known by its evidence, which is removed some time after it was last seen."""
    known = {episode.number for episode in episodes}
    first = max(1, incident.episode - len(episodes) + 1) if len(episodes) >= 50 else 1
    gone = [number for number in range(first, incident.episode + 1) if number not in known]
    if gone:
        yield Expected(
            f"What was seen in {counted(len(gone), 'episode')} of {incident.episode}",
            is_found=False,
            is_removed=True,
            since=incident.first_at,
            until=incident.opened_at,
        )
    if not evidence and incident.episode in known:
        yield Expected("What was seen in its last episode", is_found=False, is_removed=True)
    if incident.resolved_by == "expired":
        yield Expected(
            "How it ended: nobody could look for it for a day",
            is_found=False,
            since=incident.seen_at,
            until=incident.resolved_at,
        )


def _list_watches(incident: IncidentRow, now: datetime) -> Iterator[WatchedSpan]:
    """The loop that finds it must run for its end to be seen."""
    detector = DETECTORS.get(incident.class_)
    if detector is not None and detector.found_by not in ("loops", "worker"):
        until = incident.resolved_at or now
        says = "Whether it was still so is not known."
        yield WatchedSpan(detector.found_by, says, min(incident.opened_at, until), until)


def _make_evidence(evidence: Sequence[EvidenceRow]) -> EvidenceTable:
    columns = (
        Column("seen"),
        Column("first", "moment"),
        Column("last", "moment"),
        Column("times", "number"),
        Column("by"),
        Column("facts", "payload"),
    )
    rows = [
        TableRow(
            (
                row.kind.replace("_", " "),
                row.first_at,
                row.last_at,
                row.count,
                row.source,
                ", ".join(_write_facts(row)) or None,
            )
        )
        for row in evidence
    ]
    return EvidenceTable("What was seen in its last episode", columns, rows)


def _write_facts(row: EvidenceRow) -> Iterator[str]:
    for name, value in row.known_facts:
        says = moment(value) if isinstance(value, datetime) else value
        yield f"{name.replace('_', ' ')} {says}"


def _list_related(
    inquiry: Inquiry, incident: IncidentRow, followers: StartedRead[Sequence[IncidentRow]]
) -> Iterator[Related]:
    facts = incident.facts
    yield Related("Class", detector_of(incident.class_).title, None, incident.severity)
    for name in _PLACES:
        if facts.get(name):
            key = str(facts[name])
            yield Related(name.replace("cron", "cron entry").capitalize(), key, f"{name}/{key}")
    for job in (facts.get("jobs") or ())[:_MOST_JOBS]:
        yield Related("Affects", f"job {job}", f"job/{job}")
    if incident.deploy_id is not None:
        yield Related("Deploy", str(incident.deploy_id), f"deploy/{incident.deploy_id}")
    cause = find_incident(inquiry.session, incident.because_of) if incident.because_of else None
    if cause is not None:
        yield Related("Follows from", str(cause.id), f"incident/{cause.id}", cause.title)
    for follower in followers.value:
        yield Related("Is followed by", str(follower.id), f"incident/{follower.id}", follower.title)


def _list_left_out(
    evidence: Sequence[EvidenceRow], changes: Sequence[ChangeRow]
) -> Sequence[LeftOut]:
    found = []
    if len(evidence) == MOST_EVIDENCE:
        found.append(LeftOut("evidence of its last episode"))
    if len(changes) == MOST_CHANGES:
        found.append(LeftOut("changes before it", before=changes[-1].at))
    return found


def _was_there(inquiry: Inquiry) -> bool:
    """Whether its id was given out once."""
    return has_newer_incident(inquiry.session, int(inquiry.key))


KIND = Kind("incident", "lifeline.view", _read_key, _tell, _was_there)
