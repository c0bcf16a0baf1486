"""Tells what every timeline has: decisions, notes, incidents, deploys and operations. Bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ..audit.history import tell_decision
from ..audit.queries import EventRow, list_events_of
from ..core.history import Event
from ..core.round_trips import StartedRead, start_reading
from ..core.words import counted
from ..lifeline.queries import MOST_CHANGES, IncidentRow, list_deploys_between
from ..notes.queries import MOST_NOTES, list_notes
from ..operations.queries import MOST_OPERATIONS, ListedOperation, page_of_operations
from .bundle import Inquiry, LeftOut, Told

MOST_DECISIONS = 100

Lines = tuple[list[Event], list[LeftOut]]


def list_decisions_about(inquiry: Inquiry, target: str) -> Sequence[EventRow]:
    """The last decisions on a target, for a reader who may see them."""
    may_see = inquiry.may("audit.view")
    return list_events_of(inquiry.session, target, MOST_DECISIONS) if may_see else ()


def list_decision_lines(
    inquiry: Inquiry, told: Told | None, own: StartedRead[Sequence[EventRow]]
) -> Lines:
    """The last decisions on the subject, which are its `own`, and those on its `targets` within its span."""
    if not inquiry.may("audit.view"):
        return [], [LeftOut("decisions of the audit, which need audit.view")]
    listed = {
        target: start_reading(inquiry, list_decisions_about, target)
        for target in (told.targets if told else ())
    }
    found = own.value
    left_out = _older(found, "decisions")
    rows = {row.sequence: row for row in found}
    for target, listing in listed.items():
        found = listing.value
        if found and told and found[-1].at >= told.since:
            left_out += _older(found, f"decisions on {target}")
        rows |= {row.sequence: row for row in found if told and _is_in(row.at, told)}
    about = (inquiry.subject, *listed)
    return [tell_decision(row, about) for row in rows.values()], left_out


def _older(rows: Sequence[EventRow], what: str) -> list[LeftOut]:
    return [LeftOut(what, before=rows[-1].at)] if len(rows) == MOST_DECISIONS else []


def _is_in(at: datetime, told: Told) -> bool:
    return told.since <= at <= told.until


def list_note_lines(inquiry: Inquiry) -> Lines:
    """The last notes on the subject, for each of its readers."""
    notes = list_notes(inquiry.session, inquiry.subject)
    events = [
        Event(note.at, "seen", f"{note.actor}: note", "operator", label=note.text) for note in notes
    ]
    left_out = [LeftOut("notes", before=notes[-1].at)] if len(notes) == MOST_NOTES else []
    return events, left_out


def tell_incidents(incidents: Sequence[IncidentRow]) -> Iterator[Event]:
    """When the incidents about a subject began and ended, as far as their rows tell: the last episode."""
    for incident in incidents:
        subject = f"incident/{incident.id}"
        yield Event(
            incident.opened_at,
            "incident",
            f"Incident {incident.id} began: {incident.title}",
            "detector",
            subject=subject,
        )
        if incident.resolved_at is not None:
            how = incident.how_it_ended
            yield Event(
                incident.resolved_at,
                "resolved",
                f"Incident {incident.id} ended. {how}",
                "operator" if incident.resolved_by == "operator" else "detector",
                subject=subject,
            )


def list_deploy_lines(inquiry: Inquiry, since: datetime, until: datetime) -> Lines:
    """The deploys within a span."""
    rows = list_deploys_between(inquiry.session, since, until)
    events = [
        Event(row.at, "deploy", f"Deploy {row.what}", row.by, label=row.reason, subject=row.subject)
        for row in rows
    ]
    is_cut = len(rows) == MOST_CHANGES
    return events, [LeftOut("deploys", before=rows[-1].at)] if is_cut else []


def list_operations(inquiry: Inquiry) -> Sequence[ListedOperation]:
    """The newest operations, for a reader who may see them."""
    return page_of_operations(inquiry.session) if inquiry.may("operations.view") else ()


def list_operation_lines(inquiry: Inquiry, since: datetime, until: datetime) -> Lines:
    """The other operations that ran within a span, among the newest ones."""
    if not inquiry.may("operations.view"):
        return [], [LeftOut("operations, which need operations.view")]
    rows = list_operations(inquiry)
    events = [
        event
        for row in rows
        if row.started_at is not None
        and inquiry.subject != f"operation/{row.id}"
        and row.started_at <= until
        and (row.ended_at is None or row.ended_at >= since)
        for event in _of_operation(row, row.started_at)
        if since <= event.at <= until
    ]
    is_cut = len(rows) == MOST_OPERATIONS and rows[-1].created_at >= since
    return events, [LeftOut("operations", before=rows[-1].created_at)] if is_cut else []


def _of_operation(row: ListedOperation, started_at: datetime) -> Iterator[Event]:
    subject = f"operation/{row.id}"
    says = f"{row.action.replace('.', ' ')}, {counted(row.targets, 'target')}"
    yield Event(
        started_at, "operation", f"Operation {row.id} began: {says}", "operator", subject=subject
    )
    if row.ended_at is not None:
        text = f"Operation {row.id} ended: {row.state}"
        yield Event(row.ended_at, "operation", text, "loop operate", subject=subject)
