"""Shows the audit: every decision and refusal, with its reason and its place in the chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from flask import Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from ...audit import queries
from ...audit.filter import LIMITS, AuditFilter
from ...audit.models import OUTCOMES
from ...audit.queries import EventPage, EventRow, Head
from ...audit.verify import ChainCheck, find_chain_fault, verify, verify_newest
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ..app import export, pages, problems
from ..app.commands import find_command
from ..app.display import PageDisplay
from ..app.host import heavy, host, reading, stream
from ..app.saved_views import list_own_views
from .decision import detail_of, make_sees, read_around
from .diff import without_payload
from .list_request import AuditRequest, make_display, read_request

# The number of newest rows that each page verifies.
_VERIFIED = 100
_BATCH = 500
_COLUMNS = (
    "sequence",
    "at",
    "actor",
    "via",
    "action",
    "subject",
    "targets",
    "permission",
    "reason",
    "outcome",
    "code",
    "request_id",
    "preview_id",
    "previewed_at",
    "before",
    "after",
    "key_id",
    "previous_hash",
    "hash",
)


def page() -> Response:
    """The document: the filter, the rows, and the details of one row."""
    asked, display = read_request(), make_display()
    with heavy(asked.wanted.text is not None), reading() as read:
        viewing = start_reading(read, list_own_views, "audit", asked.wanted.to_query())
        acting = start_reading(read.session, queries.list_actors)
        actions = start_reading(read.session, queries.list_actions)
        made, views = _list(read, asked, display), viewing.value
        actors = [name for name in acting.value if display.clean(name) == name]
    return pages.page(
        "audit/page.html",
        "audit",
        "Audit",
        read.now,
        live=made,
        query=asked.query,
        wanted=asked.wanted,
        actors=actors,
        actions=actions,
        outcomes=OUTCOMES,
        **views,
    )


def live() -> Response:
    """The fragment that refreshes."""
    asked = read_request()
    with heavy(asked.wanted.text is not None), reading() as read:
        made = _list(read, asked, make_display())
    return pages.fragment(made)


def event_page(sequence: int) -> Response:
    """The document of one event. It does not refresh: an event never changes, and what became of its jobs is
    said with its time.
    """
    display = make_display()
    if sequence >= 2**63:  # no such number is stored
        raise problems.no_such_event(str(sequence))
    with reading() as read:
        checking = start_reading(
            read.session, verify, host().secrets, first=sequence, last=sequence
        )
        event = _find(read.session, sequence)
        around = read_around(read.session, event)
        chain = checking.value
    return pages.document(
        "audit/event.html",
        "audit",
        f"Audit {sequence}",
        read.now,
        chain=chain,
        pending=0,
        around=around,
        command=find_command(),
        **detail_of(event, display),
    )


def csv() -> Response:
    """The events of a filter as CSV."""
    return stream(lambda: _answer("csv"))


def ndjson() -> Response:
    """The events of a filter, one JSON object a line."""
    return stream(lambda: _answer("ndjson"))


def _list(read: Reading, asked: AuditRequest, display: PageDisplay) -> Markup:
    wanted = asked.wanted
    pending = start_reading(read.session, queries.count_pending)
    checking = start_reading(read.session, _read_chain)
    detailing = None if asked.row is None else start_reading(read.session, _find, asked.row)
    found = queries.page_of_events(
        read.session,
        wanted,
        read.now,
        before=asked.before,
        after=asked.after,
        shown=display.clean,
    )
    head, chain = checking.value
    event = detailing.value if detailing else None
    return pages.part(
        "audit/_live.html",
        read.now,
        wanted=wanted,
        query={name: word for name, word in asked.query.items() if name != "row"},
        rows=found.rows,
        looked_at=found.looked_at,
        older=asked.cursor("before", found.older),
        newer=asked.cursor("after", found.newer),
        total=head.sequence if head and not wanted.is_given else None,
        chain=chain,
        pending=pending,
        limits=LIMITS,
        **detail_of(event, display),
    )


def _read_chain(session: Session) -> tuple[Head | None, ChainCheck]:
    """The head, and the check of the newest rows and of it.

    Checking all rows takes minutes; the command does that.
    """
    return verify_newest(session, host().secrets, _VERIFIED)


def _find(session: Session, sequence: int) -> EventRow:
    found = queries.find_event(session, sequence)
    if found is None:
        raise problems.no_such_event(str(sequence))
    return found


def _answer(kind: str) -> Response:
    asked, display, sees = read_request(), make_display(), make_sees()
    if asked.before is not None or asked.after is not None:
        raise problems.unreadable(
            "before and after: an export is the whole list, not a page of it."
        )
    with reading() as read:
        fault, now = find_chain_fault(read.session), read.now
    batches = (
        [_row(row, display, sees) for row in page.rows]
        for page in _batches(asked.wanted, display, now)
    )
    note = f"{fault} Rows outside it are left out." if fault else ""
    return export.make_download(kind, "audit", _COLUMNS, batches, note)


def _batches(wanted: AuditFilter, display: PageDisplay, now: datetime) -> Iterator[EventPage]:
    """Batches from the newest event down, each in its own transaction, so a long file holds back no vacuum.

    Events committed meanwhile come before the first batch, so they are not part of the file.
    """
    before: int | None = None
    while True:
        with reading() as read:
            found = queries.page_of_events(
                read.session, wanted.but(limit=_BATCH), now, before=before, shown=display.clean
            )
        yield found
        if found.older is None:
            return
        before = found.older


def _row(row: EventRow, display: PageDisplay, sees: Callable[[str], bool]) -> Mapping[str, Any]:
    """One event, through the display policy and without payload that the actor may not see."""
    made: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    for name in ("actor", "subject", "reason", "request_id"):
        made[name] = None if made[name] is None else display.clean(made[name])
    made["targets"] = [display.clean(target) for target in row.targets]
    for name in ("before", "after"):
        if made[name] is not None:
            shown = without_payload(made[name], sees)
            made[name] = export.Json(display.plain(json.dumps(shown)))
    return made | {name: made[name].hex() for name in ("previous_hash", "hash")}
