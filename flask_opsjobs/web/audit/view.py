"""Shows the audit: every decision and refusal, with its reason and its place in the chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from flask import Response, request
from markupsafe import Markup
from sqlalchemy.orm import Session

from ...actions.registry import DOMAINS
from ...audit import queries
from ...audit.filter import LIMITS, AuditFilter, BadAuditFilter
from ...audit.models import OUTCOMES
from ...audit.queries import EventPage, EventRow, Head
from ...audit.verify import ChainCheck, find_chain_fault, verify
from ...core.reading import Reading
from ..app import access, export, links, pages, problems, references
from ..app.display import PageDisplay
from ..app.host import heavy, host, reading, stream
from ..audit.diff import diff, without_payload

# The number of newest rows that each page verifies.
_VERIFIED = 100
_BATCH = 500
_VIAS = {
    "page": "from the page",
    "cli": "from the command line",
    "python": "from Python",
    "system": "by itself",
}
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


@dataclass(frozen=True)
class _Asked:
    """What the address of the list requests. `row` is the event whose details are shown beside it."""

    wanted: AuditFilter
    before: int | None
    after: int | None
    row: int | None

    @property
    def query(self) -> dict[str, str]:
        """The query string that the refreshing fragment needs."""
        rest = {
            name: word for name in ("before", "after", "row") if (word := request.args.get(name))
        }
        return {**self.wanted.to_query(), **rest}


def page() -> Response:
    """The document: the filter, the rows, and the details of one row."""
    asked, display = _read(), _display()
    with heavy(asked.wanted.text is not None), reading() as read:
        made = _list(read, asked, display)
        actors = [name for name in queries.list_actors(read.session) if display.clean(name) == name]
        actions = queries.list_actions(read.session)
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
    )


def live() -> Response:
    """The fragment that refreshes."""
    asked = _read()
    with heavy(asked.wanted.text is not None), reading() as read:
        made = _list(read, asked, _display())
    return pages.fragment(made)


def event_page(sequence: int) -> Response:
    """The document of one event. It does not refresh, because an event never changes."""
    with reading() as read:
        event = _find(read.session, sequence)
        chain = verify(read.session, host().secrets, first=sequence, last=sequence)
    return pages.document(
        "audit/event.html",
        "audit",
        f"Audit {sequence}",
        read.now,
        chain=chain,
        pending=0,
        **_detail(event, _display()),
    )


def csv() -> Response:
    """The events of a filter as CSV."""
    return stream(lambda: _answer("csv"))


def ndjson() -> Response:
    """The events of a filter, one JSON object a line."""
    return stream(lambda: _answer("ndjson"))


def _read() -> _Asked:
    try:
        wanted = AuditFilter.from_query(request.args)
    except BadAuditFilter as error:
        raise problems.unreadable(f"{error}.") from error
    display = _display()
    for name in ("actor", "q"):
        text = getattr(wanted, name)
        if text is not None and display.clean(text) != text:
            raise problems.unreadable(
                f"{name}: the display policy hides such a text, so it cannot be searched."
            )
    before, after = (_position(side, wanted) for side in ("before", "after"))
    if before is not None and after is not None:
        raise problems.unreadable("before and after: a page begins at one of them.")
    row = request.args.get("row", "")
    if row and not (row.isascii() and row.isdecimal()):
        raise problems.no_such_event(row)
    return _Asked(wanted, before, after, int(row) if row else None)


def _position(side: str, wanted: AuditFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return references.read_cursor(host().secrets, f"audit {side} {wanted.conditions}", word)
    except references.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise problems.unreadable(what) from error


def _list(read: Reading, asked: _Asked, display: PageDisplay) -> Markup:
    wanted = asked.wanted
    found = queries.page_of_events(
        read.session, wanted, before=asked.before, after=asked.after, shown=display.clean
    )
    head = queries.find_head(read.session)
    event = None if asked.row is None else _find(read.session, asked.row)
    return pages.part(
        "audit/_live.html",
        read.now,
        wanted=wanted,
        query={name: word for name, word in asked.query.items() if name != "row"},
        rows=found.rows,
        looked_at=found.looked_at,
        older=_cursor_of("before", wanted, found.older),
        newer=_cursor_of("after", wanted, found.newer),
        total=head.sequence if head and not wanted.is_given else None,
        chain=_verify(read.session, head),
        pending=queries.count_pending(read.session),
        limits=LIMITS,
        **_detail(event, display),
    )


def _cursor_of(side: str, wanted: AuditFilter, position: int | None) -> str | None:
    if position is None:
        return None
    return references.make_cursor(host().secrets, f"audit {side} {wanted.conditions}", position)


def _verify(session: Session, head: Head | None) -> ChainCheck:
    """The check of the newest rows and the head. Checking all rows takes minutes; the command does that."""
    first = max(1, (head.sequence if head else 0) - _VERIFIED + 1)
    return verify(session, host().secrets, first=first)


def _find(session: Session, sequence: int) -> EventRow:
    found = queries.find_event(session, sequence) if sequence < 2**63 else None
    if found is None:
        raise problems.no_such_event(str(sequence))
    return found


def _detail(event: EventRow | None, display: PageDisplay) -> Mapping[str, Any]:
    """The template variables for the details of an event."""
    if event is None:
        return {"event": None}
    return {
        "event": event,
        "via": _VIAS[event.via],
        "diff": diff(event.before, event.after, display, _make_sees()),
        "page_url": _page_url,
    }


def _page_url(target: str) -> str | None:
    """The address of a target's page; None when it has no page."""
    return links.to_target(target) if target.partition("/")[0] in DOMAINS else None


def _display() -> PageDisplay:
    return PageDisplay(host().display, may_see=access.may_see_payload())


def _make_sees() -> Callable[[str], bool]:
    """A test whether the actor may see the payload of a target. It asks the policy once per target."""
    who = access.actor()
    assert who is not None  # checked before the view is called

    @cache
    def sees(target: str) -> bool:
        return access.holds(who, access.PAYLOAD, target)

    return sees


def _answer(kind: str) -> Response:
    asked, display, sees = _read(), _display(), _make_sees()
    if asked.before is not None or asked.after is not None:
        raise problems.unreadable(
            "before and after: an export is the whole list, not a page of it."
        )
    batches = (
        [_row(row, display, sees) for row in page.rows] for page in _batches(asked.wanted, display)
    )
    with reading() as read:
        fault = find_chain_fault(read.session)
    note = f"{fault} Rows outside it are left out." if fault else ""
    return export.make_download(kind, "audit", _COLUMNS, batches, note)


def _batches(wanted: AuditFilter, display: PageDisplay) -> Iterator[EventPage]:
    """Batches from the newest event down, each read in its own transaction.

    Events committed meanwhile have higher numbers, so they are not part of the file.
    """
    before: int | None = None
    while True:
        with reading() as read:
            found = queries.page_of_events(
                read.session, wanted.but(limit=_BATCH), before=before, shown=display.clean
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
