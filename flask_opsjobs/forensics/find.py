"""Finds the bundle of a subject: what its kind tells, with what every timeline has, and what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..core.history import Event, newest_first
from ..core.reading import Reading, read_snapshot
from ..core.round_trips import start_reading, value_of
from ..host import Host
from ..lifeline.queries import IncidentRow, list_incidents_about
from . import lines
from .bundle import Bundle, History, Inquiry, Kind, Lack, LeftOut, Path, Related
from .completeness import find_blind_windows, find_lacking, find_outages, judge
from .paths import list_paths
from .registry import read_kind
from .runbooks import find_runbook

MOST_EVENTS = 300


def may_all(_permission: str) -> bool:
    """The answer for a reader whom no access policy bounds, such as a shell."""
    return True


def find_bundle(
    host: Host,
    read: Reading,
    subject: str,
    may: Callable[[str], bool] = may_all,
) -> Bundle:
    """What is known of a subject now, and what is not. Reads only; the caller has checked the schema.

    The bundle of a subject that nobody knows says `unknown`. `may` says which page permissions its reader has
    on it. Raises `UnknownSubject` for a text that can name nothing. No text has passed the display policy:
    see `shown.show_bundle`.
    """
    kind, key = read_kind(subject)
    inquiry = Inquiry(host, read, f"{kind.name}/{key}", key, may)
    # What needs no more than its name goes together with its rows.
    own_decisions = start_reading(inquiry, lines.list_decisions_about, inquiry.subject)
    listing_notes = start_reading(inquiry, lines.list_note_lines)
    finding_incidents = start_reading(inquiry, _incidents)
    outages = start_reading(inquiry, find_outages)
    told = kind.tell(inquiry)
    # What needs its rows is started at once too.
    deciding = start_reading(inquiry, lines.list_decision_lines, told, own_decisions)
    following = start_reading(inquiry, list_paths, told, finding_incidents)
    if told is not None:
        finding_windows = start_reading(inquiry, find_blind_windows, told.watches, outages)
        deploys = start_reading(inquiry, lines.list_deploy_lines, told.since, told.until)
        operations = start_reading(inquiry, lines.list_operation_lines, told.since, told.until)
    decisions, left_out = deciding.value
    notes, older_notes = listing_notes.value
    left_out += older_notes
    incidents = finding_incidents.value
    events = [*decisions, *notes, *lines.tell_incidents(incidents)]
    if told is None:
        return _of_nothing(kind, inquiry, events, left_out, incidents, following.value)
    windows = finding_windows.value
    for found, cut in (
        deploys.value,
        operations.value,
        (value_of(told.events), value_of(told.left_out)),
        ([window.to_event() for window in windows], []),
    ):
        events += found
        left_out += cut
    lacking = find_lacking(inquiry, told, windows)
    return Bundle(
        subject=inquiry.subject,
        title=told.title,
        state=told.state,
        diagnosis=value_of(told.diagnosis),
        quote=told.quote,
        completeness=judge(told, lacking, was_there=True),
        lacking=lacking,
        since=told.since,
        until=told.until,
        timeline=make_timeline(events, left_out),
        evidence=value_of(told.evidence),
        related=(*value_of(told.related), *map(_relate, incidents)),
        paths=following.value,
        runbook=find_runbook(inquiry, incidents),
        read_at=inquiry.now,
    )


def find_bundle_apart(host: Host, subject: str) -> Bundle:
    """The bundle of a subject, in a transaction of its own, for a reader whom no access policy bounds.

    Raises `UnknownSubject`, `SchemaBehind`, `SchemaAhead`, and what SQLAlchemy raises when Postgres does not
    answer.
    """
    read_kind(subject)
    host.require_schema()
    with read_snapshot(host.engine.connect(), host.settings.page_timeout_seconds) as read:
        return find_bundle(host, read, subject)


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
    paths: Sequence[Path],
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
        paths=paths,
        runbook=find_runbook(inquiry, incidents),
        read_at=inquiry.now,
    )
