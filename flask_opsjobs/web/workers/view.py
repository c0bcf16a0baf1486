"""Shows the workers: live workers with their children, missing workers with their jobs, stopped workers."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from markupsafe import Markup

from ...actions.registry import ACTIONS
from ...workers import queries
from ..app import pages
from ..app.host import host, reading

_MISSING_SHOWN = 20


def page() -> Response:
    """The document."""
    made, now = _part()
    return pages.page("workers/page.html", "workers", "Workers", now, live=made)


def live() -> Response:
    """The fragment that refreshes."""
    return pages.fragment(_part()[0])


def _part() -> tuple[Markup, datetime]:
    with reading() as read:
        workers = queries.list_workers(read.session, read.now, host().settings.late_seconds)
        missing = [one for one in workers if one.state == "missing"]
        shown = missing[:_MISSING_SHOWN]
        current = [one for one in workers if one.state != "missing"]
        reserved = queries.list_reserved(read.session, [*shown, *current])
        stopped = queries.list_stopped(read.session, read.now)
    late = [e for e in current if e.state == "late"]
    made = pages.part(
        "workers/_live.html",
        read.now,
        missing=missing,
        missing_shown=shown,
        late=late,
        current=[*late, *(e for e in current if e.state != "late")],
        reserved=reserved,
        children={
            worker.id: queries.list_children(worker, reserved[worker.id]) for worker in current
        },
        stopped=stopped,
        cancel=ACTIONS["job.cancel"],
    )
    return made, read.now
