"""Shows why the jobs of a search wait: on a page of its own, and as a part that other pages fetch."""

from __future__ import annotations

from flask import Response, request
from markupsafe import Markup

from ...core.reading import Reading
from ...engine.explain_with_redis import explain_waiting
from ...jobs.search.filter import JobFilter
from ..app import pages
from ..app.host import heavy, host, reading
from .list_request import read_searchable


def waiting_page() -> Response:
    """The document."""
    wanted = _read_wanted()
    with heavy(), reading() as read:
        made = _explain(read, wanted)
    query = wanted.to_query()
    title = "Why jobs wait"
    return pages.page(
        "jobs/why.html", "jobs", title, read.now, live=made, query=query, wanted=wanted
    )


def waiting_live() -> Response:
    """The fragment of it that refreshes."""
    wanted = _read_wanted()
    with heavy(), reading() as read:
        made = _explain(read, wanted)
    return pages.fragment(made)


def _read_wanted() -> JobFilter:
    return read_searchable(request.args.items(multi=True)).but(sort=None)


def _explain(read: Reading, wanted: JobFilter) -> Markup:
    found = explain_waiting(host(), read.session, wanted, read.began)
    return pages.part("jobs/_waiting.html", read.now, found=found, wanted=wanted)
