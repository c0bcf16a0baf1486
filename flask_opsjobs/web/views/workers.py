"""The processes that run jobs: who is alive, what each has in hand, who went missing and what became of its jobs."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from markupsafe import Markup

from ...actions.catalog import ACTIONS
from ...lifeline import queries
from .. import _pages
from .._reads import reading


def page() -> Response:
    """The document."""
    made, now = _part()
    return _pages.page("workers.html", "workers", "Workers", now, live=made)


def live() -> Response:
    """What of it refreshes."""
    return _pages.fragment(_part()[0])


def _part() -> tuple[Markup, datetime]:
    with reading() as read:
        executors = queries.list_executors(read.session, read.now)
        held = queries.list_held(read.session, executors)
        stopped = queries.list_stopped(read.session, read.now)
    by_state = {
        state: [e for e in executors if e.state == state] for state in ("alive", "late", "missing")
    }
    made = _pages.part(
        "workers/_live.html",
        read.now,
        by_state=by_state,
        alive=[*by_state["late"], *by_state["alive"]],
        held=held,
        stopped=stopped,
        cancel=ACTIONS["job.cancel"],
    )
    return made, read.now
