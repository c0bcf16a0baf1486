"""Reads what the address of the audit asks for: its filter, the page, and the decision beside the list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import request

from ...audit.filter import AuditFilter, BadAuditFilter
from ..app import access, problems, references
from ..app.display import PageDisplay
from ..app.host import host


@dataclass(frozen=True)
class AuditRequest:
    """What the address of the list requests. `row` is the event whose details are shown beside it."""

    wanted: AuditFilter
    before: int | None
    after: int | None
    row: int | None

    @property
    def query(self) -> dict[str, str]:
        """The query string that the refreshing fragment needs."""
        places = ("before", "after", "row")
        rest = {name: word for name in places if (word := request.args.get(name))}
        return {**self.wanted.to_query(), **rest}

    def cursor(self, side: str, position: int | None) -> str | None:
        """The mark of a neighbouring page, for its address."""
        if position is None:
            return None
        return references.make_cursor(host().secrets, _purpose(side, self.wanted), position)


def read_request() -> AuditRequest:
    """What the current address requests. Raises `Problem` when it cannot be read."""
    wanted = read_filter(request.args)
    before, after = (_position(side, wanted) for side in ("before", "after"))
    if before is not None and after is not None:
        raise problems.unreadable("before and after: a page begins at one of them.")
    row = request.args.get("row", "")
    if row and not (row.isascii() and row.isdecimal() and int(row) < 2**63):
        raise problems.no_such_event(row)
    return AuditRequest(wanted, before, after, int(row) if row else None)


def read_filter(query: Mapping[str, str]) -> AuditFilter:
    """The filter in a query string. Raises `Problem` also for a text that the display policy hides."""
    try:
        wanted = AuditFilter.from_query(query)
    except BadAuditFilter as error:
        raise problems.unreadable(f"{error}.") from error
    display = make_display()
    for name in ("actor", "q", "request_id"):
        text = getattr(wanted, name)
        if text is not None and display.clean(text) != text:
            raise problems.unreadable(
                f"{name}: the display policy hides such a text, so it cannot be searched."
            )
    return wanted


def make_display() -> PageDisplay:
    """The display policy for this request."""
    return PageDisplay(host().display, may_see=access.may_see_payload())


def _position(side: str, wanted: AuditFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return references.read_cursor(host().secrets, _purpose(side, wanted), word)
    except references.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise problems.unreadable(what) from error


def _purpose(side: str, wanted: AuditFilter) -> str:
    return f"audit {side} {wanted.conditions}"
