"""The list of jobs, and the way from a pasted id to its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...jobs import queries, search_ids
from ...jobs.filter import LIMITS, JobFilter
from ...jobs.lifecycle import MEANINGS, STATES
from ...jobs.rows import Count, JobPage
from ...jobs.search_terms import BadFilter
from ...queues.queries import list_queue_names
from .. import _cursor, _pages, _problems
from .._host import host
from .._reads import Reading, reading


@dataclass(frozen=True)
class _Asked:
    """What the query string of a list asks for."""

    wanted: JobFilter
    before: int | None
    after: int | None

    @classmethod
    def read(cls) -> _Asked:
        try:
            wanted = JobFilter.from_query(request.args.items(multi=True))
        except BadFilter as error:
            raise _problems.unreadable(f"{error}.") from error
        before, after = (_position(side, wanted) for side in ("before", "after"))
        if before is not None and after is not None:
            raise _problems.unreadable("before and after: a page begins at one of them.")
        return cls(wanted, before, after)

    @property
    def query(self) -> Mapping[str, str]:
        cursors = {side: word for side in ("before", "after") if (word := request.args.get(side))}
        return {**self.wanted.to_query(), **cursors}


def _position(side: str, wanted: JobFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return _cursor.read(host().secrets, f"jobs {side} {wanted.conditions}", word)
    except _cursor.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise _problems.unreadable(what) from error


def page() -> Response:
    """The document: search box, tabs, table."""
    asked = _Asked.read()
    with reading() as read:
        made = _list(read, asked)
        names = {
            "queues": list_queue_names(read.session),
            "workers": queries.list_worker_names(read.session),
            "states": STATES,
        }
    return _pages.page(
        "jobs.html",
        "jobs",
        "Jobs",
        read.now,
        live=made,
        query=asked.query,
        wanted=asked.wanted,
        **names,
    )


def live() -> Response:
    """Tabs and table."""
    with reading() as read:
        made = _list(read, _Asked.read())
    return _pages.fragment(made)


def _list(read: Reading, asked: _Asked) -> Markup:
    wanted = asked.wanted
    counts = queries.count_jobs_by_state(read.session, wanted, read.now)
    everything = Count.sum(counts.values())
    found = queries.page_of_jobs(
        read.session, wanted, read.now, before=asked.before, after=asked.after
    )
    return _pages.part(
        "jobs/_live.html",
        read.now,
        wanted=wanted,
        counts=counts,
        everything=everything,
        total=counts[wanted.state] if wanted.state else everything,
        rows=found.rows,
        older=_cursor_of("before", wanted, found),
        newer=_cursor_of("after", wanted, found),
        limits=LIMITS,
        meanings=MEANINGS,
    )


def _cursor_of(side: str, wanted: JobFilter, found: JobPage) -> str | None:
    """The word for the page beyond this one on that side, or None when there is none."""
    if not found.rows or not (found.has_older if side == "before" else found.has_newer):
        return None
    last = found.rows[-1 if side == "before" else 0]
    return _cursor.make(host().secrets, f"jobs {side} {wanted.conditions}", last.id)


def jump() -> AnyResponse:
    """To the job that a pasted id means: ours, or that of its delivery in RQ."""
    wanted = request.args.get("to", "").strip()
    number = search_ids.read(wanted)
    if number is None:
        raise _problems.unreadable(
            f"{wanted[:40]!r} is neither the id of a job nor an RQ id such as opsjobs-42-1."
        )
    return redirect(url_for("opsjobs.job", job_id=number), 303)
