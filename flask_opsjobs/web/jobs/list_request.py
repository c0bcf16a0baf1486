"""Reads filter and cursor from the address of the jobs page, and checks that the filter is permitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from flask import request, url_for

from ...core.display import Display
from ...jobs.rows import JobPage
from ...jobs.search.filter import PLACES, JobFilter
from ...jobs.search.further_queries import IsShown
from ...jobs.search.hit_queries import shows
from ...jobs.search.terms import Argument, BadFilter, Pattern, split_clauses
from ..app import access, problems, references
from ..app.host import host

# The names of these are shown as they are.
_PUBLIC = ("state", "queue", "task", "origin", "death")


@dataclass(frozen=True)
class ListRequest:
    """A filter, and the id of the job before or after which the page of the list begins.

    `is_whole`: all jobs that match are selected, on this page and beyond.
    """

    wanted: JobFilter
    before: int | None
    after: int | None
    is_whole: bool

    @property
    def query(self) -> Mapping[str, str]:
        """The query string it was read from, in its shortest form."""
        kept = {name: word for name in PLACES if (word := request.args.get(name))}
        return {**self.wanted.to_query(), **kept}

    def cursor(self, side: str, found: JobPage) -> str | None:
        """The cursor for the next page on that side; None when there is none."""
        if not found.rows or not (found.has_older if side == "before" else found.has_newer):
            return None
        last = found.rows[-1 if side == "before" else 0]
        return references.make_cursor(
            host().secrets, f"jobs {side} {self.wanted.conditions}", last.id
        )


def list_words() -> Iterator[tuple[str, str]]:
    """The words alone in the search box, which may be names, each with the rest of the box.

    None in quotes, negated or joined by OR, and none of a text that cannot be read.
    """
    box = request.args.get("q", "")
    try:
        clauses = split_clauses(box)
    except BadFilter:
        return
    for term, *others in clauses:
        if not (others or term.name or term.is_quoted or term.is_not) and term.place:
            begin, end = term.place
            yield term.value, f"{box[:begin]}{box[end:]}".strip()


def read_fields() -> JobFilter:
    """The filter in the current address without the search box. Raises `Problem` when it cannot be read."""
    pairs = [pair for pair in request.args.items(multi=True) if pair[0] != "q"]
    try:
        return JobFilter.from_query(pairs)
    except BadFilter as error:
        raise problems.unreadable(f"{error}.") from error


def readable_fields() -> JobFilter:
    """The same; an empty filter when it cannot be read."""
    try:
        return read_fields()
    except problems.Problem:
        return JobFilter()


def read_list_request() -> ListRequest:
    """The filter and the cursor of the current address.

    Raises `Problem` when they cannot be read, or when the actor may not search for this.
    """
    wanted = read_searchable(request.args.items(multi=True))
    before, after = (_position(side, wanted) for side in ("before", "after"))
    if before is not None and after is not None:
        raise problems.unreadable("before and after: a page begins at one of them.")
    if (selected := request.args.get("selected", "")) not in ("", "all"):
        raise problems.unreadable(f"selected: {selected[:40]!r} is not all.")
    return ListRequest(wanted, before, after, selected == "all")


def read_searchable(pairs: Iterable[tuple[str, str]]) -> JobFilter:
    """The filter from the fields of a search.

    Raises `Problem` when it cannot be read, or when the actor may not search for this.
    """
    try:
        wanted = JobFilter.from_query(pairs)
    except BadFilter as error:
        raise problems.unreadable(f"{error}.", place=error.place) from error
    _require_searchable(wanted)
    return wanted


def read_address(address: str) -> JobFilter | None:
    """The filter of a jobs page at an address of ours.

    None for the address of another page, and for a filter that the actor may not use.
    """
    path, _, query = address.partition("?")
    if path != url_for("opsjobs.jobs"):
        return None
    try:
        wanted = JobFilter.from_query(parse_qsl(query))
        _require_searchable(wanted)
    except (BadFilter, problems.Problem):
        return None
    return wanted


def is_shown() -> IsShown:
    """A test whether an error still has a text after the display policy has cleaned it."""
    return shows(host().display)


def _position(side: str, wanted: JobFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return references.read_cursor(host().secrets, f"jobs {side} {wanted.conditions}", word)
    except references.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise problems.unreadable(what) from error


def _require_searchable(wanted: JobFilter) -> None:
    """Raise `Problem` for a search in hidden values: the number of hits would reveal them."""
    if wanted.needs_payload and not access.may_see_payload():
        raise problems.denied(access.PAYLOAD)
    display = Display(host().display, may_see=True)
    for one in wanted.every_condition:
        value = one.value
        if isinstance(value, Argument):
            if _is_redacted(value, wanted) or any(map(display.hides, value.path)):
                raise problems.unreadable(
                    f"{one.name}: this argument is hidden, so it cannot be searched."
                )
            value = value.value
        text = value.text if isinstance(value, Pattern) else value
        if one.name not in _PUBLIC and isinstance(text, str) and display.clean(text) != text:
            raise problems.unreadable(
                f"{one.name}: the display policy hides such a value, so it cannot be searched."
            )


def _is_redacted(argument: Argument, wanted: JobFilter) -> bool:
    """Whether a searched task redacts the argument. A job enqueued before that may still have its value."""
    known = host().tasks
    named = known.get(wanted.task or "")
    searched = known.values() if named is None else [named]
    return any(argument.path[0] in task.redact for task in searched)
