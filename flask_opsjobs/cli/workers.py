"""Lists the workers with their children, drains, stops and forgets workers: `flask opsjobs workers …`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from flask.cli import AppGroup, with_appcontext

from ..actions.domain import Action
from ..actions.operator import Operator
from ..actions.registry import ACTIONS
from ..core.display import Display
from ..core.words import span
from ..engine.redis.unknown_workers import find_unknown
from ..errors import ActionRefused
from ..workers.process_identity import identify
from ..workers.queries import (
    ChildRow,
    ReservedRow,
    WorkerRow,
    list_children,
    list_reserved,
    list_workers,
)
from . import _operate, current_host, open_snapshot, plain, to_json


@click.group("workers", cls=AppGroup, invoke_without_command=True)
@click.option(
    "--self",
    "is_self",
    is_flag=True,
    help="Only the workers of ours on this machine or in this container.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
@with_appcontext
def workers(context: click.Context, is_self: bool, as_json: bool) -> None:
    """Print the workers that have not stopped.

    Each has its children with it, and missing ones come first. Reads only. Exits 0 when one of them is alive,
    also when that is not known of a plain RQ worker; else 1; 2 when the database does not answer in time. So
    `--self` tells whether the worker of a container is well.
    """
    if context.invoked_subcommand is not None:
        return
    host = current_host()
    with open_snapshot(host) as read:
        found = list_workers(read.session, read.now, host.settings.late_seconds)
        if is_self:
            found = [worker for worker in found if _is_here(worker)]
        attempts = list_reserved(read.session, found)
    found = find_unknown(found, host)
    if as_json:
        rows = [_as_json(worker, attempts[worker.id]) for worker in found]
        click.echo(to_json({"workers": rows}, indent=2))
    else:
        clean = Display(host.display, may_see=True).clean
        for worker in found:
            click.echo(plain(*_lines(worker, attempts[worker.id], read.now, clean)))
        if not found:
            click.echo("no worker runs" + " on this machine or in this container" * is_self)
    sys.exit(0 if any(worker.is_alive or worker.silent_since for worker in found) else 1)


def _help(action: Action[Any]) -> dict[str, str]:
    short = f"{action.title} workers."
    return {
        "short_help": short,
        "help": f"{action.title} the workers with these NAMES. {action.risk}\n{_operate.EXITS}",
    }


def _of_many(action: Action[Any]) -> Callable[[_operate.F], _operate.F]:
    """A command on workers that are named, or on those of a queue or of a machine."""

    def add(function: Any) -> Any:
        for option in (
            _operate.options,
            click.option("--host", help="All workers on this machine or container."),
            click.option("--queue", help="All workers that listen to this queue."),
            click.argument("names", nargs=-1),
            workers.command(action.short_name, **_help(action)),
        ):
            function = option(function)
        return function

    return add


def _run(
    action: str,
    names: tuple[str, ...],
    queue: str | None,
    host: str | None,
    params: Mapping[str, Any],
    **options: Any,
) -> None:
    if not (names or queue or host):
        raise click.UsageError("name workers, or choose them with --queue or --host")
    found = list(names)
    if queue or host:
        try:
            finding = Operator(current_host())
            found += finding.find_workers(action, queue=queue, host=host, **params)
        except ActionRefused as refused:
            raise click.ClickException(str(refused)) from refused
    _operate.run_action(action, [f"worker/{name}" for name in found], params=params, **options)


@_of_many(ACTIONS["worker.drain"])
def drain(**options: Any) -> None:
    """Drain workers."""
    _run("worker.drain", params={}, **options)


@_of_many(ACTIONS["worker.stop"])
@click.option(
    "--grace",
    type=click.IntRange(0, 86_400),
    metavar="SECONDS",
    help="Kill what still runs after so long. Without it the workers end what they run. "
    "Of a machine or a queue only workers of ours take it.",
)
def stop(grace: int | None, **options: Any) -> None:
    """Stop workers."""
    _run("worker.stop", params={"grace": grace}, **options)


@workers.command("forget", **_help(ACTIONS["worker.forget"]))
@click.argument("names", nargs=-1, required=True)
@_operate.options
def forget(names: tuple[str, ...], **options: Any) -> None:
    """Forget workers."""
    _operate.run_action("worker.forget", [f"worker/{name}" for name in names], **options)


def _is_here(worker: WorkerRow) -> bool:
    machine = (worker.boot_id, worker.pid_namespace)
    return worker.host == socket.gethostname() and machine == identify(os.getpid()).machine


def _lines(
    worker: WorkerRow, attempts: Sequence[ReservedRow], now: datetime, clean: Callable[[str], str]
) -> Iterator[str]:
    pool = worker.pool
    rates = ""
    is_missing = worker.state == "missing"
    if pool.jobs_per_second is not None and not is_missing:
        rates = (
            f" {pool.jobs_per_second:,g} jobs a second, {pool.from_postgres:,g} taken from Postgres, "
            f"{pool.through_rq:,g} through RQ, {pool.reserved:,} reserved."
        )
    yield (
        f"{worker.name} is {_state_of(worker)}, pid {worker.pid} on {worker.host}, {_version_of(worker)}"
        f"queues {', '.join(worker.queues) or 'not known'}. "
        f"Last heartbeat {_span(worker.heartbeat_at, now)} ago.{rates}"
    )
    for child in list_children(worker, attempts):
        if child.attempt is not None or not is_missing:
            yield f"  {_line(child, now)}"
    if worker.drain_requested_at is not None:
        who, ago = (
            clean(worker.drain_requested_by or "somebody"),
            _span(worker.drain_requested_at, now),
        )
        yield f"  {who} drained it {ago} ago: it takes nothing new, and stops when its jobs have ended"
    if worker.is_childless:
        yield "  none of its children starts; it tries again after at most 30 s"
    if (last := worker.last_left) is not None:
        yield f"  the last child left {_span(last.at, now)} ago: it {clean(last.sentence)}"
    for left in worker.left:
        if not left.is_usual:
            yield f"  {clean(left.says)}"


def _state_of(worker: WorkerRow) -> str:
    if worker.silent_since is None:
        return worker.state
    return "not known to live, because its Redis does not answer"


def _version_of(worker: WorkerRow) -> str:
    return f"version {worker.deploy_version}, " if worker.deploy_version is not None else ""


def _line(child: ChildRow, now: datetime) -> str:
    attempt, report = child.attempt, child.report
    parts = [f"{child.pid or 'child'} {child.state}"]
    if attempt is not None:
        parts[0] += f" job {attempt.job_id} {attempt.task} for {_span(attempt.since, now)}"
    elif report is not None and report.rq_id is not None:
        parts[0] += f" plain RQ job {report.rq_id}"
    if report is not None:
        parts.append(f"{report.jobs:,} done")
        if report.rss_kb is not None:
            parts.append(f"{report.rss_kb / 1000:,.1f} MB")
    return ", ".join(parts)


def _span(moment: datetime, now: datetime) -> str:
    return span(max(0.0, (now - moment).total_seconds()))


def _as_json(worker: WorkerRow, attempts: Sequence[ReservedRow]) -> Mapping[str, Any]:
    return {
        "name": worker.name,
        "kind": worker.kind,
        "state": worker.state,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "deploy_version": worker.deploy_version,
        "queues": list(worker.queues),
        "processes": worker.processes,
        "started_at": worker.started_at.isoformat(),
        "heartbeat_at": worker.heartbeat_at.isoformat(),
        "rss_kb": worker.rss_kb,
        **worker.pool.to_json(),
        "left": [{**asdict(left), "at": left.at.isoformat()} for left in worker.left],
        "attempts": [
            {
                "job_id": one.job_id,
                "task": one.task,
                "pid": one.pid,
                "since": one.since.isoformat(),
            }
            for one in attempts
            if one.outcome is None
        ],
    }
