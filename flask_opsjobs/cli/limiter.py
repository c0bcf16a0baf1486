"""Lists, explains and simulates limiters, and sets their cooldowns: `flask opsjobs limiter …`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from ..actions.registry import ACTIONS
from ..core.display import Display
from ..limits import queries
from ..limits.actions import make_target
from ..limits.limit import LONGEST_SECONDS, MOST_NUMBER
from ..limits.simulation import LimitChange, Live, TooLong, Trial, read_live
from . import _limiters, _operate, _simulate, current_host, plain, to_json
from ._simulate import CannotRun

limiter = AppGroup(
    "limiter", help="List, explain or simulate limiters; set or clear their cooldowns."
)
_partition = click.option("--partition", help="One partition of the limiter.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@limiter.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Print the first 100 limiters by name, with the number of waiting and running jobs of each.

    Reads only. Exits 0, or 2 when the database does not answer.
    """
    with _limiters.open_snapshot(current_host()) as read:
        rows = queries.list_limiters(read.session, read.now)
    is_cut = len(rows) >= queries.MOST_LIMITERS
    if as_json:
        summaries = [_limiters.summary(row) for row in rows]
        click.echo(to_json({"limiters": summaries, "is_cut": is_cut}))
        return
    for row in rows:
        click.echo(plain(_limiters.line(row)))
    if is_cut:
        click.echo(f"these are the first {len(rows)} by name; `explain` knows every one")
    if not rows:
        click.echo("no limiter has been declared")


@limiter.command("explain")
@click.argument("name")
@_partition
@_as_json
def explain(name: str, partition: str | None, as_json: bool) -> None:
    """Print the state of the limiter NAME, and why its next job does or does not start.

    Reads only. Exits 0, or 2 when it cannot run: no such limiter, or the database does not answer.
    """
    clean = _clean()
    try:
        with _limiters.open_snapshot(current_host()) as read:
            row = _limiters.find_limiter_row(read.session, name, partition, read.now)
            bucket = _limiters.explain_bucket(read.session, row, partition)
    except CannotRun as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(to_json(_cleaned(bucket, clean), indent=2))
    else:
        click.echo(plain(*_limiters.bucket_lines(bucket, clean)))


@limiter.command("simulate")
@click.argument("task")
@click.option(
    "--count", type=click.IntRange(1), help="The number of jobs, which all arrive at once."
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file with the jobs, one per line: seconds since the start, and a weight.",
)
@click.option(
    "--weight",
    type=click.IntRange(1, MOST_NUMBER),
    help="The weight of each job with --count; the declared weight by default.",
)
@click.option("--rate", type=float, help="Try another rate: this many starts …")
@click.option("--per", type=float, help="… in this many seconds.")
@click.option("--burst", type=int, help="Try another burst.")
@click.option("--concurrency", type=int, help="Try another number of jobs at the same time.")
@click.option(
    "--run-seconds",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="How long each job runs.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="The number of workers; as many as needed by default.",
)
@click.option(
    "--from-live", is_flag=True, help="Begin with the limiter's state and waiting jobs as of now."
)
@_partition
@_as_json
def simulate_(
    task: str, run_seconds: float, workers: int | None, as_json: bool, **asked: Any
) -> None:
    """Print when jobs of TASK would start under its limit, or under another limit.

    A dry run with simulated time, using the real limiter code. Nothing is written. Exits 0, or 2
    when it cannot run, with a sentence.
    """
    try:
        declared = current_host().tasks.get(task)
        if declared is None:
            raise CannotRun(f"there is no task {task}")
        # NaN passes every bound of click's.
        if not run_seconds <= LONGEST_SECONDS:
            raise CannotRun(f"--run-seconds is at most {LONGEST_SECONDS:,}, a year")
        if asked["partition"] is not None and not asked["from_live"]:
            raise CannotRun("--partition says which bucket --from-live begins with: give both")
        names = ("rate", "per", "burst", "concurrency")
        change = LimitChange(**{name: asked[name] for name in names})
        weight = _simulate.choose_weight(declared.declared.limit, asked["weight"], asked["trace"])
        limit = _simulate.choose_limit(declared.declared.limit, change, task, weight)
        jobs = _simulate.choose_jobs(asked["count"], asked["trace"], weight.each or 1)
        live = _live(limit.name, asked["partition"]) if asked["from_live"] else None
        found = Trial(jobs, run_seconds, workers, live).under(limit.shape)
    except (CannotRun, TooLong) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(to_json(_simulate.as_json(limit, weight, found)))
    else:
        click.echo(plain(*_simulate.trial_lines(limit, weight, found)))


@limiter.command(
    "cooldown",
    short_help="Start no job of a limiter for a while.",
    help="Start no job of the limiter NAME for a while. "
    f"{ACTIONS['limiter.cooldown'].risk}\n{_operate.EXITS}",
)
@click.argument("name")
@click.option("--minutes", required=True, help="How long, in minutes.")
@_partition
@_operate.options
def cooldown(name: str, minutes: str, partition: str | None, **options: Any) -> None:
    """Cool down one limiter or partition."""
    target, params = make_target(name, partition), {"minutes": minutes}
    _operate.run_action("limiter.cooldown", [target], params=params, **options)


@limiter.command(
    "clear",
    short_help="End the cooldown of a limiter.",
    help=f"End the cooldown of the limiter NAME. {ACTIONS['limiter.clear'].risk}\n{_operate.EXITS}",
)
@click.argument("name")
@_partition
@_operate.options
def clear(name: str, partition: str | None, **options: Any) -> None:
    """Clear the cooldown of one limiter or partition."""
    _operate.run_action("limiter.clear", [make_target(name, partition)], **options)


def _live(name: str, partition: str | None) -> Live:
    """The state of the bucket, and its waiting jobs."""
    with _limiters.open_snapshot(current_host()) as read:
        row = _limiters.find_limiter_row(read.session, name, partition, read.now)
        if partition is None and row.partition_by is not None:
            raise CannotRun(f"the limiter {name} has partitions: say which with --partition")
        return read_live(read.session, name, partition or "")


def _clean() -> Callable[[str], str]:
    return Display(current_host().display, may_see=True).clean


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(inner, clean) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, clean) for inner in value]
    return clean(value) if isinstance(value, str) else value
