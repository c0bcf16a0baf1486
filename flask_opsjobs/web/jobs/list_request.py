"""Reads what the address of a list of jobs requests, and checks that it may be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl

from flask import request, url_for

from ...jobs.rows import JobPage
from ...jobs.search.filter import JobFilter
from ...jobs.search.terms import Argument, BadFilter, Unqualified
from ..app import access, problems
from ..app import cursor as _cursor
from ..app.display import Display
from ..app.host import host


@dataclass(frozen=True)
class ListRequest:
    """A filter, and the id of the job before or after which the page begins."""

    wanted: JobFilter
    before: int | None
    after: int | None

    @property
    def query(self) -> Mapping[str, str]:
        """The query string it was read from, in its shortest form."""
        cursors = {side: word for side in ("before", "after") if (word := request.args.get(side))}
        return {**self.wanted.to_query(), **cursors}

    def cursor(self, side: str, found: JobPage) -> str | None:
        """The word for the page beyond this one on that side, or None when there is none."""
        if not found.rows or not (found.has_older if side == "before" else found.has_newer):
            return None
        last = found.rows[-1 if side == "before" else 0]
        return _cursor.make(host().secrets, f"jobs {side} {self.wanted.conditions}", last.id)


def find_word() -> Unqualified | None:
    """The first word of the search box that has no qualifier; None when all have, or it cannot be read."""
    try:
        JobFilter.from_query(request.args.items(multi=True))
    except Unqualified as found:
        return found
    except BadFilter:
        pass
    return None


def read_fields() -> JobFilter:
    """The filter that the current address names beside its search box. Raises `Problem`."""
    pairs = [pair for pair in request.args.items(multi=True) if pair[0] != "q"]
    try:
        return JobFilter.from_query(pairs)
    except BadFilter as error:
        raise problems.unreadable(f"{error}.") from error


def readable_fields() -> JobFilter:
    """The same; nothing, where they cannot be read either."""
    try:
        return read_fields()
    except problems.Problem:
        return JobFilter()


def read_list_request() -> ListRequest:
    """What the current address asks for. Raises `Problem` for what cannot be read, or must not be searched."""
    try:
        wanted = JobFilter.from_query(request.args.items(multi=True))
    except BadFilter as error:
        raise problems.unreadable(f"{error}.") from error
    _require_searchable(wanted)
    before, after = (_position(side, wanted) for side in ("before", "after"))
    if before is not None and after is not None:
        raise problems.unreadable("before and after: a page begins at one of them.")
    return ListRequest(wanted, before, after)


def read_address(address: str) -> JobFilter | None:
    """The filter of the list of jobs at an address of ours; None of another page, or when it may not be asked."""
    path, _, query = address.partition("?")
    if path != url_for("opsjobs.jobs"):
        return None
    try:
        wanted = JobFilter.from_query(parse_qsl(query))
        _require_searchable(wanted)
    except (BadFilter, problems.Problem):
        return None
    return wanted


def is_shown(wanted: JobFilter) -> Callable[[str], bool]:
    """Whether an error that fits also fits as it is shown: else a secret could be guessed letter by letter."""
    display = Display(host().display, may_see=True)
    text = (wanted.error or "").lower()

    @cache  # the same error comes a thousand times
    def fits(error: str) -> bool:
        return text in display.clean(error).lower()

    return fits


def _position(side: str, wanted: JobFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return _cursor.read_cursor(host().secrets, f"jobs {side} {wanted.conditions}", word)
    except _cursor.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise problems.unreadable(what) from error


def _require_searchable(wanted: JobFilter) -> None:
    """What may not be seen may not be searched either: the number of hits would tell it."""
    if wanted.needs_payload and not access.may_see_payload():
        raise problems.denied(access.PAYLOAD)
    display = Display(host().display, may_see=True)
    for argument in wanted.args:
        if _is_redacted(argument, wanted) or any(map(display.hides, argument.path)):
            raise problems.unreadable(
                f"{argument.name}: this argument is hidden, so it cannot be searched."
            )
    texts = {one.name: one.value for one in wanted.args} | {
        "tag": wanted.tag,
        "error": wanted.error,
    }
    for name, text in texts.items():
        if text is not None and display.clean(text) != text:
            raise problems.unreadable(
                f"{name}: the display policy hides such a value, so it cannot be searched."
            )


def _is_redacted(argument: Argument, wanted: JobFilter) -> bool:
    """Whether a task whose jobs are searched keeps the argument back. One job from before may still hold it."""
    known = host().tasks
    searched = [known[wanted.task]] if wanted.task in known else known.values()
    return any(argument.path[0] in task.redact for task in searched)
