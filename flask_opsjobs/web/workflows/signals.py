"""Shows the signals that were sent, with their outcome and how often each was sent again."""

from __future__ import annotations

from flask import Response, request
from markupsafe import Markup

from ...core.reading import Reading
from ...workflows import queries
from ...workflows.lifecycle import OUTCOMES
from ..app import pages, problems, references
from ..app.host import host, reading

# The shape and colour of each outcome.
SHAPES = {
    "early": "scheduled",
    "taken": "finished",
    "late": "late",
    "ambiguous": "review",
    "unmatched": "canceled",
}


def page() -> Response:
    """The document of the signals."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.page("signals/page.html", "workflows", "Signals", read.now, live=made, query=query)


def live() -> Response:
    """The fragment of it that refreshes."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.fragment(made)


def _read_query() -> dict[str, str]:
    names = ("outcome", "before", "after")
    query = {name: value for name in names if (value := request.args.get(name))}
    if query.get("outcome", "taken") not in OUTCOMES:
        known = ", ".join(OUTCOMES)
        raise problems.unreadable(f"outcome: a signal is {known}, never {query['outcome'][:40]!r}.")
    if "before" in query and "after" in query:
        raise problems.unreadable("before and after: a page begins at one of them.")
    return query


def _list(read: Reading, query: dict[str, str]) -> Markup:
    outcome = query.get("outcome")
    places = {
        side: _position(side, outcome, query[side]) for side in ("before", "after") if side in query
    }
    found = queries.page_of_signals(read.session, outcome=outcome, **places)
    ids = [line.signal.id for line in found.lines]
    return pages.part(
        "signals/_live.html",
        read.now,
        lines=found.lines,
        outcome=outcome,
        counts=queries.count_signals_by_outcome(read.session),
        outcomes=OUTCOMES,
        shapes=SHAPES,
        older=_cursor("before", outcome, ids[-1]) if ids and found.has_older else None,
        newer=_cursor("after", outcome, ids[0]) if ids and found.has_newer else None,
    )


def _cursor(side: str, outcome: str | None, id: int) -> str:
    return references.make_cursor(host().secrets, f"signals {side} {outcome}", id)


def _position(side: str, outcome: str | None, word: str) -> int:
    try:
        return references.read_cursor(host().secrets, f"signals {side} {outcome}", word)
    except references.BadCursor as error:
        what = f"{side}: this mark of a page was not made for these signals. Start from the first page."
        raise problems.unreadable(what) from error
