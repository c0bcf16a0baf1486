"""Shows the workers: live workers with their children, missing workers with their jobs, stopped workers.

Also plain RQ workers, and the queues that have due jobs and no worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from flask import Response, request
from markupsafe import Markup
from werkzeug import Response as WerkzeugResponse

from ...actions.domain import Action
from ...actions.operator import Operator
from ...actions.planning import MOST_TARGETS
from ...actions.registry import ACTIONS
from ...core.round_trips import start_reading
from ...engine.redis.unknown_workers import find_unknown
from ...errors import ActionRefused
from ...failures.deploys import Marker, find_newest
from ...lifeline.loop_runs import find_loop
from ...lifeline.watch import list_abandoned
from ...overview.queries import count_listeners, find_queues
from ...queues.queries import list_decisions
from ...workers import queries
from ...workers.actions import kinds_for
from ...workers.queries import WorkerRow
from ..actions import view as actions
from ..app import order, pages, problems
from ..app.host import asking, host, reading

_MISSING_SHOWN = 20


# The columns by which the workers of ours that have not ended can be ordered.
KEYS: order.Keys = {
    "name": lambda worker: worker.name,
    "state": lambda worker: (worker.drain_requested_at is not None, worker.state),
    "queues": lambda worker: ", ".join(worker.queues),
    "rate": lambda worker: worker.pool.jobs_per_second,
    "taken": lambda worker: worker.pool.from_postgres,
    "reserved": lambda worker: worker.pool.reserved,
    "memory": lambda worker: worker.rss_kb,
    "heartbeat": lambda worker: -worker.heartbeat_at.timestamp(),
}


def page() -> Response:
    """The document."""
    made, now, query = _part()
    drain = ACTIONS["worker.drain"]
    return pages.page(
        "workers/page.html", "workers", "Workers", now, live=made, query=query, drain=drain
    )


def live() -> Response:
    """The fragment that refreshes."""
    return pages.fragment(_part()[0])


def rescue(name: str) -> WerkzeugResponse:
    """Start the rescue of the jobs that a worker has left, at most as many as one plan may have."""
    with reading() as read:
        ids = queries.list_jobs_of(read.session, name, MOST_TARGETS)
    if not ids:
        raise problems.no_jobs_of_worker(name)
    return actions.start(ACTIONS["job.rescue"], [f"job/{id}" for id in ids])


def on_many(action: Action[Any]) -> Callable[[], WerkzeugResponse]:
    """A view that starts the action on the selected workers, or on all of a queue or of a machine."""

    def view() -> WerkzeugResponse:
        chosen = {name: request.form.get(name) or None for name in ("queue", "host")}
        if not any(chosen.values()):
            return actions.on_picked(action)()
        params = {param: request.values.get(param, "") for param in action.params}
        try:
            with asking():
                names = Operator(host()).find_workers(action.name, **chosen, **params)
        except ActionRefused as refused:
            raise problems.unreadable(f"{str(refused)[:200]}.") from refused
        return actions.start(action, [f"worker/{name}" for name in names], params)

    return view


def _part() -> tuple[Markup, datetime, Mapping[str, str]]:
    asked = order.read_order(KEYS, texts=("name", "state", "queues"))
    with reading() as read:
        driver: Any = read.session.connection().connection.driver_connection
        leaving = start_reading(read.session, lambda _: list_abandoned(driver))
        newest = start_reading(read.session, lambda _: find_newest(driver))
        stopped = start_reading(read.session, queries.list_stopped, read.now)
        watch = start_reading(read.session, find_loop, read.now, "watch")
        deciding = start_reading(read.session, list_decisions)
        late_seconds = host().settings.late_seconds
        listing = start_reading(read.session, queries.list_workers, read.now, late_seconds)
        finding = start_reading(read.session, find_queues, listing, deciding)
        missing = [one for one in listing.value if one.state == "missing"]
        shown = missing[:_MISSING_SHOWN]
        others = [one for one in listing.value if one.state != "missing"]
        reserved = queries.list_reserved(read.session, [*shown, *others])
        queues = finding.value
        left = Counter({each.worker_id: each.jobs + each.reserved for each in leaving.value})
    workers = find_unknown(others, host())
    late = [one for one in workers if one.state == "late"]
    current = [*late, *(one for one in workers if one.state != "late")]
    plain = [one for one in current if one.kind == "plain"]
    made = pages.part(
        "workers/_live.html",
        read.now,
        missing=missing,
        missing_shown=shown,
        late=late,
        current=current,
        pools=asked.apply([one for one in current if one.kind == "pool"], KEYS),
        order=asked,
        plain=plain,
        unserved=[one for one in count_listeners(queues, workers) if one.is_unserved],
        reserved=reserved,
        children={
            worker.id: queries.list_children(worker, reserved[worker.id]) for worker in current
        },
        stopped=stopped,
        older={one.id for one in [*shown, *workers] if _is_older(one, newest.value)},
        left=left,
        cancel=ACTIONS["job.cancel"],
        rescue=ACTIONS["job.rescue"],
        drain=ACTIONS["worker.drain"],
        stop=ACTIONS["worker.stop"],
        machines=Counter(one.host for one in current if one.kind in kinds_for("worker.stop", 0)),
        plain_on=Counter(one.host for one in plain),
        forget=ACTIONS["worker.forget"],
        settings=host().settings,
        watch=watch,
    )
    return made, read.now, asked.all_query


def _is_older(worker: WorkerRow, newest: Marker | None) -> bool:
    """Return whether a deploy of another version came after that of the worker, by the order of markers."""
    if newest is None or worker.deploy_id is None or worker.deploy_version == newest.version:
        return False
    return worker.deploy_id < newest.id
