"""Shows the overview: what is wrong, what needs an operator, what fails, and how fast jobs run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Response, request
from markupsafe import Markup

from ...audit.queries import list_newest_of
from ...core.reading import Reading
from ...core.round_trips import StartedRead, start_reading
from ...engine.plain_jobs import find_plain_jobs
from ...engine.redis.broker import broker_of
from ...engine.redis.connections import find_unreachable
from ...engine.redis.unknown_workers import mark_unknown
from ...jobs.lifecycle import MANAGED_FINAL
from ...jobs.search.filter import JobFilter
from ...overview.blocks import split_blocks
from ...overview.headline import find_wrong, say_whole
from ...overview.pace_queries import WINDOWS, Counted, Pace, find_counted, find_pace
from ...overview.queries import count_listeners, find_overview, find_resolved
from ..app import access, pages
from ..app.charts import make_charts
from ..app.host import host, reading
from ..app.numbers import find_jobs, make_numbers
from ..lifeline.steps import first_step
from .needs_attention import AttentionFacts, make_cards
from .trend_svg import draw_trend

_RESOLVED = timedelta(days=1)
# The decisions that the charts mark: what lets many jobs wait, or go on.
_MARKED = (
    *("queue.pause", "queue.drain", "queue.resume", "task.pause", "task.resume"),
    *("worker.drain", "worker.stop", "limiter.cooldown", "limiter.clear"),
    *("cron.pause", "cron.resume"),
)
# The endpoints that cards link to, by the navigation entry whose permission they need.
_BELOW = {
    "jobs": ("job",),
    "queues": ("queue",),
    "tasks": ("task",),
    "workflows": ("workflow",),
    "cron": ("cron_entry",),
    "limiters": ("limiter",),
    "audit": ("audit_event",),
}


def page() -> Response:
    """The document."""
    made, now = _part()
    query = {"window": _window()}
    return pages.page(
        "overview/page.html", "overview", "Overview", now, live=made, query=query, says_sources=True
    )


def live() -> Response:
    """The fragment that refreshes."""
    return pages.fragment(_part()[0], says_sources=True)


def _window() -> str:
    asked = request.args.get("window", "")
    return asked if asked in WINDOWS else "hour"


def _part() -> tuple[Markup, datetime]:
    with reading() as read:
        settings = host().settings
        counted = start_reading(read.session, find_counted)
        looking = start_reading(
            read.session, find_overview, read.now, settings.late_seconds, settings.loops_off
        )
        resolving = start_reading(read.session, find_resolved, read.now - _RESOLVED)
        numbering = start_reading(read, _find_numbers, counted)
        overview, resolved, (pace, numbers) = looking.value, resolving.value, numbering.value
    # After the transaction, so that no database connection waits for Redis.
    declared = {task.declared.queue for task in host().tasks.values()}
    names = {"default", *declared, *(queue.name for queue in overview.queues)}
    broker = broker_of(host())
    unreachable = find_unreachable(broker.connections, names)
    seen_workers = mark_unknown(overview.workers, unreachable)
    overview = replace(
        overview,
        workers=seen_workers,
        queues=count_listeners(overview.queues, seen_workers),
    )
    plain_jobs = find_plain_jobs(broker, names, read.now)
    wrong = find_wrong(overview, unreachable, is_suspended=plain_jobs.is_suspended)
    lost = {name for one in unreachable for name in one.queues} - overview.served
    due = split_blocks(overview, lost, is_suspended=plain_jobs.is_suspended)
    is_checked_now = bool(overview.loops) and all(loop.is_running for loop in overview.loops)
    counting = next((loop for loop in overview.loops if loop.loop == "roll_up"), None)
    made = pages.part(
        "overview/_live.html",
        read.now,
        seen=overview,
        wrong=wrong,
        whole=say_whole(overview),
        first_step=first_step,
        draw_trend=draw_trend,
        cards=make_cards(
            AttentionFacts(
                overview,
                resolved,
                pace,
                plain_jobs,
                due,
                bool(lost) or not is_checked_now,
                host().settings.adopt,
                host().bridge.is_mounted,
            )
        ),
        unreachable=unreachable,
        is_checked_now=is_checked_now and not unreachable,
        counting=counting if counting and counting.is_running else None,
        **numbers,
        window=pace.window,
        allowed=set(_allowed()),
    )
    return made, read.now


def _find_numbers(read: Reading, counted: StartedRead[Counted]) -> tuple[Pace, Mapping[str, Any]]:
    may_audit = access.may("audit.view")
    deciding = start_reading(read.session, list_newest_of, _MARKED) if may_audit else None
    pace = find_pace(read.session, _window(), read.now, counted.value)
    of_state = {state: find_jobs(JobFilter(state=state), "ended") for state in MANAGED_FINAL}
    charts = make_charts(pace, of_state["finished"], of_state["failed"], of_state["canceled"])
    events = deciding.value if deciding else None
    return pace, make_numbers(read.session, pace, charts, JobFilter(), events, is_short=True)


def _allowed() -> Iterator[str]:
    """The endpoints that the actor may open."""
    for entry in access.list_navigation():
        yield from (entry.endpoint, *_BELOW.get(entry.endpoint, ()))
