"""Lists, pauses, drains, resumes, resyncs and clears queues, and sets their prefetch: `opsjobs queue …`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from ..core.display import Display
from ..core.round_trips import start_reading
from ..core.words import counted
from ..engine.redis.unknown_workers import find_unknown
from ..jobs.search.filter import JobFilter
from ..operations.operator import waiting_in
from ..overview.queries import QueueDepth, count_listeners, find_queues
from ..queues.queries import list_decisions
from ..workers.queries import list_workers
from . import _operate, current_host, open_snapshot, operation, plain, to_json

queue = AppGroup(
    "queue", help="List queues; pause, drain, resume, resync or clear them. Set their prefetch."
)


@queue.command("list")
@click.option("--find", default="", help="Only queues with this in their names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(find: str, as_json: bool) -> None:
    """Print each queue: its state, its jobs and its workers.

    The jobs are those that have not ended. Many jobs of one state are counted to a bound, as on the page. The
    workers are those that live. While a Redis does not answer, it is not known whether its plain RQ workers
    live. Reads only. Exits 0; 2 when the database does not answer in time.
    """
    host = current_host()
    clean = Display(host.display, may_see=True).clean
    with open_snapshot(host) as read:
        listing = start_reading(read.session, list_workers, read.now, host.settings.late_seconds)
        decided = start_reading(read.session, list_decisions)
        queues = find_queues(read.session, listing, decided)
    workers = find_unknown(listing.value, host)
    queues = count_listeners(queues, workers)
    not_known = Counter(
        name for one in workers if one.is_listening and one.silent_since for name in one.queues
    )
    found = [one for one in queues if find.lower() in one.name.lower()]
    shown = [_as_object(one, clean(one.name), not_known[one.name]) for one in found]
    if as_json:
        click.echo(to_json({"queues": shown}))
        return
    for one in shown:
        jobs = ", ".join(f"{number:,} {state}" for state, number in one["jobs"].items())
        listeners = counted(one["workers"], "worker")
        if unknown := one["workers_not_known"]:
            listeners += f", {unknown} not known"
        click.echo(plain(f"{one['name']}  {one['state']}  {jobs or 'no jobs'}  {listeners}"))
    if not queues:
        click.echo("no queue is known: it appears with its first job or its first worker")
    elif not found:
        click.echo(f"no queue has {find!r} in its name")


def _as_object(one: QueueDepth, name: str, not_known: int) -> dict[str, Any]:
    jobs = {state: depth.count.number for state, depth in one.states.items() if depth.count.number}
    alive = one.listeners - not_known
    return {
        "name": name,
        "state": one.state,
        "workers": alive,
        "workers_not_known": not_known,
        "jobs": jobs,
    }


def _add(action: Action[Any]) -> None:
    @queue.command(
        action.short_name,
        short_help=f"{action.title} queues.",
        help=f"{action.title} the queues with these NAMES. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("names", nargs=-1, required=True)
    @_operate.options
    def command(names: tuple[str, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"queue/{name}" for name in names], **options)


for _short_name in ("pause", "drain", "resume", "resync"):
    _add(ACTIONS[f"queue.{_short_name}"])


@queue.command(
    "set-prefetch",
    short_help="Set how many jobs of a queue may be in Redis.",
    help=f"Set how many jobs of the queue NAME may be in Redis: a number, or `auto`.\n{_operate.EXITS}",
)
@click.argument("name")
@click.argument("prefetch")
@_operate.options
def set_prefetch(name: str, prefetch: str, **options: Any) -> None:
    """Set the prefetch of one queue."""
    _operate.run_action(
        "queue.set_prefetch", [f"queue/{name}"], params={"prefetch": prefetch}, **options
    )


@queue.command("clear", short_help="Cancel all jobs of a queue that wait.")
@click.argument("name")
@operation.options_of_start
@_operate.options
def clear(name: str, rate: int | None, wait: bool, **options: Any) -> None:
    """Cancel all jobs of the queue NAME that wait, as an operation: what runs goes on.

    The same as `flask opsjobs operation start cancel` with a search for the waiting jobs of the queue. Jobs
    that are enqueued meanwhile stay: pause the queue before, to start none of them.
    """
    waiting = waiting_in(JobFilter(queue=name))
    operation.start_on("job.cancel", waiting, rate=rate, wait=wait, **options)
