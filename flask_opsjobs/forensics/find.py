"""Finds the bundle of a subject: what its kind tells, with what every timeline has, and what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from ..core.history import Event, newest_first
from ..core.reading import read_snapshot
from ..host import Host
from ..lifeline.queries import IncidentRow, list_incidents_about
from . import lines
from .bundle import Bundle, History, Inquiry, Kind, Lack, LeftOut, Related
from .completeness import find_blind_windows, find_lacking, judge
from .paths import list_paths
from .registry import read_kind
from .runbooks import find_runbook

MOST_EVENTS = 300


def may_all(_permission: str) -> bool:
    """The answer for a reader whom no access policy bounds, such as a shell."""
    return True


def find_bundle(
    host: Host,
    session: Session,
    subject: str,
    now: datetime,
    may: Callable[[str], bool] = may_all,
) -> Bundle:
    """What is known of a subject as of `now`, and what is not. Reads only; the caller has checked the schema.

    The bundle of a subject that nobody knows says `unknown`. `may` says which page permissions its reader has
    on it. Raises `UnknownSubject` for a text that can name nothing. No text has passed the display policy:
    see `shown.show_bundle`.
    """
    kind, key = read_kind(subject)
    inquiry = Inquiry(host, session, f"{kind.name}/{key}", key, now, may)
    told = kind.tell(inquiry)
    decisions, left_out = lines.list_decision_lines(inquiry, told)
    notes, older_notes = lines.list_note_lines(inquiry)
    left_out += older_notes
    incidents = _incidents(inquiry)
    events = [*decisions, *notes, *lines.tell_incidents(incidents)]
    if told is None:
        return _of_nothing(kind, inquiry, events, left_out, incidents)
    windows = find_blind_windows(inquiry, told.watches)
    for found, cut in (
        lines.list_deploy_lines(inquiry, told.since, told.until),
        lines.list_operation_lines(inquiry, told.since, told.until),
        (list(told.events), list(told.left_out)),
        ([window.to_event() for window in windows], []),
    ):
        events += found
        left_out += cut
    lacking = find_lacking(inquiry, told, windows)
    return Bundle(
        subject=inquiry.subject,
        title=told.title,
        state=told.state,
        diagnosis=told.diagnosis,
        quote=told.quote,
        completeness=judge(told, lacking, was_there=True),
        lacking=lacking,
        since=told.since,
        until=told.until,
        timeline=make_timeline(events, left_out),
        evidence=told.evidence,
        related=(*told.related, *map(_relate, incidents)),
        paths=list_paths(inquiry, told, incidents),
        runbook=find_runbook(inquiry, incidents),
        read_at=now,
    )


def find_bundle_apart(host: Host, subject: str) -> Bundle:
    """The bundle of a subject, in a transaction of its own, for a reader whom no access policy bounds.

    Raises `UnknownSubject`, `SchemaBehind`, `SchemaAhead`, and what SQLAlchemy raises when Postgres does not
    answer.
    """
    read_kind(subject)
    host.require_schema()
    with read_snapshot(host.engine.connect(), host.settings.page_timeout_seconds) as read:
        return find_bundle(host, read.session, subject, read.now)


def make_timeline(events: Iterable[Event], left_out: Sequence[LeftOut] = ()) -> History:
    """The newest events, and what is left out."""
    ordered = newest_first(events)
    kept, cut = ordered[:MOST_EVENTS], ordered[MOST_EVENTS:]
    older = [LeftOut("events", before=kept[-1].at, number=len(cut))] if cut else []
    return History(kept, [*older, *left_out])


def _incidents(inquiry: Inquiry) -> Sequence[IncidentRow]:
    if not inquiry.may("lifeline.view"):
        return ()
    return list_incidents_about(inquiry.session, inquiry.subject)


def _relate(incident: IncidentRow) -> Related:
    return Related(
        "Incident",
        str(incident.id),
        f"incident/{incident.id}",
        f"{incident.state}: {incident.title}",
    )


def _of_nothing(
    kind: Kind,
    inquiry: Inquiry,
    events: Sequence[Event],
    left_out: Sequence[LeftOut],
    incidents: Sequence[IncidentRow],
) -> Bundle:
    """The bundle of a subject whose rows are gone, or never were."""
    name, other = f"{kind.name} {inquiry.key}", None
    was_there = bool(events) or kind.was_there(inquiry)
    if was_there:
        says = f"The rows of {name} are removed. What others recorded about it is below."
        lacking = f"the rows of {name} themselves: they are removed, or were never committed"
    else:
        says = f"Nothing is known of {name}: no row, no decision and no incident names it."
        lacking = f"everything about {name}"
        if found := kind.find_other(inquiry):
            says, other = found
            lacking = f"a {name}: there is none"
    return Bundle(
        subject=inquiry.subject,
        title=f"{name[:1].upper()}{name[1:]}",
        state=None,
        diagnosis=says,
        quote=None,
        completeness=judge(None, (), was_there=was_there),
        lacking=(Lack(lacking, is_removed=was_there),),
        since=None,
        until=None,
        timeline=make_timeline(events, left_out),
        evidence=(),
        related=(*([other] if other else []), *map(_relate, incidents)),
        paths=list_paths(inquiry, None, incidents),
        runbook=find_runbook(inquiry, incidents),
        read_at=inquiry.now,
    )
