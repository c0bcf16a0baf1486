"""Shows the list of tasks, the worst change first, and the page of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any

from flask import Response, request, url_for
from markupsafe import Markup
from sqlalchemy.orm import Session

from ...actions.registry import ACTIONS, actions_of
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.reading import Reading
from ...core.round_trips import start_reading, values_of
from ...core.words import exact_span, short_duration
from ...cron.queries import list_entries
from ...failures.queries import DeployMark, floor, list_deaths, page_of_failures
from ...jobs.lifecycle import DEATHS
from ...jobs.record.declaration import TaskDeclaration
from ...jobs.search.filter import JobFilter
from ...jobs.search.ranges import read_moments
from ...lifeline.loop_runs import find_loop
from ...operations.operator import waiting_in
from ...overview.failure_queries import HOURS, list_hours_of_failures
from ...tasks.change import say_kb, say_share
from ...tasks.outlier_queries import count_long
from ...tasks.queries import (
    DAY,
    HOUR,
    find_pauses,
    list_paused,
    list_task_hours,
    look_at_newest,
)
from ...tasks.ranking import AGAINST, KEYS, Hours, TaskRow, find_row, rank_tasks
from ..app import access, order, pages, problems
from ..app.deaths import say_death, say_memory
from ..app.host import host, reading
from ..app.list_page import PlaceInList, cut_list, read_list_place
from ..app.numbers import list_shown_deploys, make_numbers, without_plain
from ..overview.trend_svg import draw_trend
from .steps import WINDOWS, draw_task_pace, find_task_pace

# So many rows a page.
_ROWS = 50
_MOST_FAILURES = 10
# The loop that folds the numbers.
_COUNTER = "roll_up"


def page() -> Response:
    """The document of all tasks."""
    asked, place = _read_query()
    made, now = _all(asked, place)
    query = {**asked.all_query, **place.query}
    return pages.page(
        "tasks/page.html", "tasks", "Tasks", now, live=made, query=query, asked=asked.all_query
    )


def live() -> Response:
    """The fragment of it that refreshes."""
    return pages.fragment(_all(*_read_query())[0])


def task_page(name: str) -> Response:
    """The document of one task."""
    query = _read_window()
    with reading() as read:
        made = _one(read, name, query.get("window", "day"))
    return pages.page(
        "task/page.html",
        "tasks",
        name,
        read.now,
        live=made,
        query=query,
        name=name,
        waiting=waiting_in(JobFilter(task=name)).to_query(),
    )


def task_live(name: str) -> Response:
    """The fragment of it that refreshes."""
    with reading() as read:
        made = _one(read, name, _read_window().get("window", "day"))
    return pages.fragment(made)


# --- the list


def _read_query() -> tuple[order.ListOrder, PlaceInList]:
    """The order, with what is compared and a part of the names; and the page."""
    place = read_list_place()
    query = dict(place.search)
    if against := request.args.get("against"):
        if against not in AGAINST:
            raise problems.unreadable(
                f"against: {against[:40]!r} is not one of {', '.join(AGAINST)}"
            )
        query["against"] = against
    asked = order.read_order(KEYS, query, ("task",))
    if asked.column is None:
        asked = replace(asked, column="change", is_descending=True)
    return asked, place


def _all(asked: order.ListOrder, place: PlaceInList) -> tuple[Markup, datetime]:
    query = asked.all_query
    against = query.get("against", "yesterday")
    with reading() as read:
        hours = Hours.until(read.now, DAY, against)
        counter = start_reading(read.session, find_loop, read.now, _COUNTER)
        paused = start_reading(read.session, list_paused)
        rows, has_more = _rank(read.session, hours, asked)
        shown = cut_list(rows, attrgetter("task"), place, _ROWS, query)
        names = [row.task for row in shown.rows]
        marking = start_reading(read.session, list_shown_deploys, hours.start)
        pauses = start_reading(read.session, find_pauses, names)
        trends = list_task_hours(read.session, names, hours.start, hours.end) if names else {}
        marks = marking.value
        around = values_of({"counter": counter, "paused": paused, "pauses": pauses})
    return pages.part(
        "tasks/_live.html",
        read.now,
        shown=shown,
        worse=[row for row in rows if row.change.is_worse],
        number=len(rows),
        has_more=has_more,
        order=asked,
        hours=hours,
        query=query,
        trend_of=partial(_trend_of, trends, hours, marks),
        queue_of=_queue_of,
        short_duration=short_duration,
        say_share=say_share,
        say_kb=say_kb,
        **around,
    ), read.now


def _rank(session: Session, hours: Hours, asked: order.ListOrder) -> tuple[Sequence[TaskRow], bool]:
    assert asked.column is not None
    return rank_tasks(session, hours, asked.column, is_descending=asked.is_descending)


def _trend_of(
    trends: Mapping[str, Mapping[datetime, tuple[int, int]]],
    hours: Hours,
    marks: Sequence[DeployMark],
    row: TaskRow,
) -> Markup:
    numbers = trends.get(row.task, {})
    moments = [hours.start + at * HOUR for at in range((hours.end - hours.start) // HOUR)]
    ended, failed = zip(*(numbers.get(at, (0, 0)) for at in moments), strict=True)
    return draw_trend(ended, "job", hours.start, marks, failed)


def _queue_of(task: str) -> str | None:
    """The queue that the task declares here; None for a task that this code does not know."""
    declared = host().performable.get(task)
    return declared.declared.queue if declared else None


# --- one


def _read_window() -> Mapping[str, str]:
    asked = request.args.get("window", "")
    return {"window": asked} if asked in WINDOWS else {}


def _one(read: Reading, task: str, window: str) -> Markup:
    session, declared = read.session, host().performable.get(task)
    deciding = fault = None
    if access.may("audit.view"):
        deciding = start_reading(session, list_events_of, f"task/{task}")
        fault = start_reading(session, find_chain_fault)
    hours = Hours.until(read.now, DAY, "yesterday")
    since = floor(read.now, HOUR) - (HOURS - 1) * HOUR
    # It takes longest, so Postgres executes it first, while the others are made.
    pacing = start_reading(session, find_task_pace, task, window, read.now)
    pausing = start_reading(session, find_pauses, [task])
    looking = start_reading(session, look_at_newest, task)
    entries = start_reading(session, list_entries)
    failing = [
        start_reading(session, page_of_failures, state, task=task) for state in ("open", "ignored")
    ]
    more: dict[str, Any] = {
        "deploys": start_reading(session, list_shown_deploys, since),
        "deaths": start_reading(session, list_deaths, task, read.now - timedelta(days=30)),
        "counter": start_reading(session, find_loop, read.now, _COUNTER),
    }
    row = find_row(session, task, hours)
    pause, newest = pausing.value.get(task), looking.value
    if not (declared or newest.live or pause or row.now.enqueued or row.now.ended or row.before):
        raise problems.no_such_task(task)
    failures = [
        failure for page in failing for failure in page.value.rows if failure.last_at >= since
    ][:_MOST_FAILURES]
    of_hours = start_reading(session, list_hours_of_failures, [one.id for one in failures], since)
    events = deciding.value if deciding else None
    pace, wanted = pacing.value, JobFilter(task=task)
    counted = without_plain(wanted)
    may_search = access.may("jobs.view")
    return pages.part(
        "task/_live.html",
        read.now,
        **make_numbers(session, pace, draw_task_pace(pace, counted), counted, events),
        **more,
        task=task,
        pause=pause,
        cancel=ACTIONS["job.cancel"],
        actions=actions_of("task", "paused" if pause else "open"),
        events=events,
        chain_fault=fault,
        row=row,
        hours=hours,
        newest=newest,
        long=count_long(row.now.runs),
        window=window,
        windows=WINDOWS,
        of_window=partial(_of_window, task),
        failures=failures,
        failure_hours=of_hours,
        since=since,
        draw_trend=draw_trend,
        declared=declared,
        about=_declared_lines(declared) if declared else (),
        entries=[one.name for one in entries.value if one.task == task],
        meanings_of_deaths=DEATHS,
        say_death=say_death,
        say_memory=say_memory,
        searches=_list_searches(row) if may_search else (),
        why_query=wanted.to_query() if may_search else None,
        short_duration=short_duration,
        say_share=say_share,
        say_kb=say_kb,
    )


def _of_window(task: str, window: str) -> str:
    return url_for("opsjobs.task", name=task, window=None if window == "day" else window)


def _list_searches(row: TaskRow) -> Sequence[tuple[str, Mapping[str, str], str]]:
    """What to look at closer: a label, the query of a search of its jobs, and what is known of them."""
    task, now, lately = row.task, row.now, read_moments("created", "<1d")
    slowest = "" if now.longest_run is None else short_duration(now.longest_run)
    wait = "" if now.wait is None else f"p95 {short_duration(now.wait)}"
    searches = [
        ("newest jobs", JobFilter(task=task), ""),
        ("newest failed", JobFilter(task=task, state="failed"), ""),
        ("slowest of the last day", JobFilter(task=task, created=lately, sort="-run"), slowest),
        ("longest wait of the last day", JobFilter(task=task, created=lately, sort="-wait"), wait),
        ("to be tried again", JobFilter(task=task, state="retryable"), ""),
        ("running now", JobFilter(task=task, state="started"), ""),
    ]
    return [(label, wanted.to_query(), known) for label, wanted, known in searches]


def _declared_lines(task: TaskDeclaration) -> Sequence[tuple[str, str]]:
    """The options as declared: name and value in words."""
    options = task.declared
    lines = [
        ("Function", f"{task.function.__module__}.{task.function.__qualname__}"),
        ("Attempts", f"{options.max_attempts}, backoff {_say_backoff(task)}"),
        ("Time limit", f"{options.timeout} s" if options.timeout else "none"),
        ("Priority", str(options.priority)),
        ("Enqueue from page", "yes" if task.enqueue_from_page else "no"),
    ]
    if options.deadline is not None:
        lines.append(("Deadline", f"{exact_span(options.deadline)} after it is due"))
    if options.unique is not None:
        lines.append(("Unique", _say_unique(task)))
    if task.redact:
        lines.append(("Redacted", ", ".join(sorted(task.redact))))
    return lines


def _say_backoff(task: TaskDeclaration) -> str:
    if task.backoff is None:
        return "from 15 s, doubled each time"
    return "by a function" if callable(task.backoff) else f"{task.backoff} s"


def _say_unique(task: TaskDeclaration) -> str:
    unique = task.declared.unique
    assert unique is not None
    by = (
        "by a function"
        if unique.key
        else "by " + (", ".join(unique.by) if unique.by else "all arguments")
    )
    lifetime = f"for {exact_span(unique.within)}" if unique.within else f"until {unique.until}"
    return f"{by}, {lifetime}"
