"""Shows the queues: depth, rates, listening workers, and decisions about each queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any

from flask import Response, request, url_for
from markupsafe import Markup

from ...actions.domain import Action
from ...actions.registry import ACTIONS, actions_of
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...engine.redis.unknown_workers import find_unknown
from ...jobs.search.filter import JobFilter
from ...operations.operator import waiting_in
from ...overview.pace_queries import WINDOWS, find_counted, find_queue_pace
from ...overview.queries import QueueDepth, count_listeners, find_queues
from ...queues.lifecycle import MEANINGS
from ...queues.queries import QueueRow, Rate, Rates, find_rates, list_decisions
from ...workers.queries import WorkerRow, list_workers
from ..app import access, order, pages, problems
from ..app.host import host, reading
from ..app.list_page import cut_list, read_list_place
from ..app.numbers import make_numbers
from .steps import draw_queue_pace

# So many rows a page, and so many of the queues that start no jobs above them: none above what was searched.
_ROWS = 100
_MOST_STOPPED = 10
WAITS = ("scheduled", "deferred", "retryable")


def _count(*states: str) -> Callable[[QueueView], int]:
    return lambda row: sum(row.depth.states[state].count.number for state in states)


def _rate(name: str) -> Callable[[QueueView], int | None]:
    return lambda row: None if row.rate is None else getattr(row.rate, name)


def _since(moment: datetime | None) -> float | None:
    """What is larger, the longer ago it is."""
    return None if moment is None else -moment.timestamp()


# The columns by which the list can be ordered.
KEYS: order.Keys = {
    "name": lambda row: row.name,
    "waiting": _count(*WAITS),
    "due": _count("available"),
    "queued": _count("queued"),
    "started": _count("started"),
    "oldest": lambda row: _since(row.depth.due_since),
    "enqueued": _rate("enqueued"),
    "ended": _rate("ended"),
    "failed": _rate("failed"),
    "prefetch": lambda row: (row.decided and row.decided.prefetch) or host().settings.prefetch,
    "workers": lambda row: len(row.listeners),
}


@dataclass(frozen=True)
class QueueView:
    """A queue as the pages show it. `rate` is None while no minute is counted."""

    depth: QueueDepth
    decided: QueueRow | None
    rate: Rate | None
    listeners: Sequence[WorkerRow]

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.depth.name

    @property
    def state(self) -> str:
        """`open`, `draining` or `paused`."""
        return self.depth.state

    @property
    def actions(self) -> Sequence[Action[Any]]:
        """The actions that are legal now, except `set_prefetch`, which has a form."""
        return [action for action in actions_of("queue", self.state) if not action.params]


def page() -> Response:
    """The document of all queues."""
    made, now, query = _all()
    return pages.page("queues/page.html", "queues", "Queues", now, live=made, query=query)


def live() -> Response:
    """The fragment of it that refreshes."""
    return pages.fragment(_all()[0])


def queue_page(name: str) -> Response:
    """The document of one queue, with the form that sets its prefetch."""
    row, made, now = _one(name)
    prefetch = row.decided.prefetch if row.decided else None
    return pages.page(
        "queue/page.html",
        "queues",
        name,
        now,
        live=made,
        query=_read_window(),
        name=name,
        prefetch=prefetch,
        default=host().settings.prefetch,
        set_prefetch=ACTIONS["queue.set_prefetch"],
        search=JobFilter(queue=name).to_query(),
        waiting=waiting_in(JobFilter(queue=name)).to_query(),
    )


def queue_live(name: str) -> Response:
    """The fragment of it that refreshes."""
    return pages.fragment(_one(name)[1])


def _all() -> tuple[Markup, datetime, Mapping[str, str]]:
    place = read_list_place()
    asked = order.read_order(KEYS, place.search)
    with reading() as read:
        found = _find(read)
    rows, rates = _rows(found), found.rates
    ordered = asked.apply(rows, KEYS)
    stopped = [row for row in ordered if row.state != "open" or row.depth.is_unserved]
    most = 0 if place.find else _MOST_STOPPED
    made = pages.part(
        "queues/_live.html",
        read.now,
        rows=rows,
        shown=cut_list(ordered, attrgetter("name"), place, _ROWS, asked.all_query),
        stopped=stopped[:most],
        more_stopped=len(stopped[most:]),
        order=asked,
        rates=rates,
        not_known={one.id for row in rows for one in row.listeners if one.silent_since},
        waits=WAITS,
        default=host().settings.prefetch,
    )
    return made, read.now, {**asked.all_query, **place.query}


def _one(name: str) -> tuple[QueueView, Markup, datetime]:
    wanted, window = JobFilter(queue=name), _read_window().get("window", "hour")
    with reading() as read:
        counted = start_reading(read.session, find_counted)
        deciding = fault = None
        if access.may("audit.view"):
            deciding = start_reading(read.session, list_events_of, f"queue/{name}")
            fault = start_reading(read.session, find_chain_fault)
        finding = start_reading(read, _find)
        pace = find_queue_pace(read.session, name, window, read.now, counted.value)
        found = finding.value
        if not any(depth.name == name for depth in found.depths):
            raise problems.no_such_queue(name)
        events = deciding.value if deciding else None
        drawn = draw_queue_pace(pace, wanted)
        numbers = make_numbers(read.session, pace, drawn, wanted, events)
        chain_fault = fault.value if fault else None
    (row,) = (row for row in _rows(found) if row.name == name)
    made = pages.part(
        "queue/_live.html",
        read.now,
        **numbers,
        window=window,
        windows=WINDOWS,
        of_window=partial(_of_window, row.name),
        row=row,
        search=wanted.to_query(),
        rates=found.rates,
        events=events,
        chain_fault=chain_fault,
        cancel=ACTIONS["job.cancel"],
        drain=ACTIONS["worker.drain"],
        stop=ACTIONS["worker.stop"],
        meaning=MEANINGS[row.state],
        default=host().settings.prefetch,
    )
    return row, made, read.now


def _read_window() -> Mapping[str, str]:
    asked = request.args.get("window", "")
    return {"window": asked} if asked in WINDOWS else {}


def _of_window(queue: str, window: str) -> str:
    return url_for("opsjobs.queue", name=queue, window=None if window == "hour" else window)


@dataclass(frozen=True)
class _Found:
    """What Postgres tells of all queues."""

    depths: Sequence[QueueDepth]
    workers: Sequence[WorkerRow]
    decided: Mapping[str, QueueRow]
    rates: Rates


def _find(read: Reading) -> _Found:
    deciding = start_reading(read.session, list_decisions)
    rating = start_reading(read.session, find_rates, read.now)
    listing = start_reading(read.session, list_workers, read.now, host().settings.late_seconds)
    depths = find_queues(read.session, listing, deciding)
    return _Found(depths, listing.value, deciding.value, rating.value)


def _rows(found: _Found) -> Sequence[QueueView]:
    """Asks Redis whether it answers: call it outside a transaction."""
    workers, rates = find_unknown(found.workers, host()), found.rates
    return [
        QueueView(
            depth,
            found.decided.get(depth.name),
            rates.by_queue.get(depth.name, Rate(0, 0, 0)) if rates.counted_until else None,
            [one for one in workers if one.is_listening and depth.name in one.queues],
        )
        for depth in count_listeners(found.depths, workers)
    ]
