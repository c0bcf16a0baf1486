"""Lists, explains and simulates limiters, and sets their cooldowns: `flask opsjobs limiter …`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from ..actions.registry import ACTIONS
from ..core.display import Display
from ..core.words import counted
from ..limits import queries
from ..limits.actions import make_target
from ..limits.bucket import tokens_at
from ..limits.limit import LONGEST_SECONDS, MOST_NUMBER, BadLimit, Limit
from ..limits.queries import (
    MOST_COUNTED,
    BucketState,
    HolderRow,
    LimiterRow,
    has_partition,
    list_hot_partitions,
)
from ..limits.simulation import (
    MOST_JOBS,
    BadTrace,
    LimitChange,
    Live,
    SimulatedJob,
    TooLong,
    Trial,
    TrialOutcome,
    change_limit,
    read_live,
    read_trace,
    weight_of,
)
from ..limits.words import BLOCKS, WAITS, in_words
from . import _operate, current_host, open_snapshot, plain, to_json

_STEPS = 10

limiter = AppGroup("limiter", help="List, explain or simulate limiters; set or clear cooldowns.")
_partition = click.option("--partition", help="One partition of the limiter.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class _CannotRun(Exception):
    """The command cannot run with these options; the message says why."""


@limiter.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Print the first 100 limiters by name.

    Each has the number of its waiting and running jobs. Reads only. Exits 0, or 2 when the database does not
    answer in time.
    """
    with open_snapshot(current_host()) as read:
        rows = queries.list_limiters(read.session, read.now)
    is_cut = len(rows) >= queries.MOST_LIMITERS
    if as_json:
        summaries = [_summary(row) for row in rows]
        click.echo(to_json({"limiters": summaries, "is_cut": is_cut}))
        return
    for row in rows:
        click.echo(plain(_line(row)))
    if is_cut:
        click.echo(f"these are the first {len(rows)} by name; `explain` knows every one")
    if not rows:
        click.echo("no limiter has been declared")


@limiter.command("explain")
@click.argument("name")
@_partition
@_as_json
def explain(name: str, partition: str | None, as_json: bool) -> None:
    """Print the state of the limiter NAME.

    It says why the next job does or does not start. Reads only. Exits 0, or 2 when it cannot run: no such
    limiter, or the database does not answer in time.
    """
    clean = _clean()
    try:
        with open_snapshot(current_host()) as read:
            row = _find_limiter_row(read.session, name, partition, read.now)
            bucket = _explain_bucket(read.session, row, partition)
    except _CannotRun as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(to_json(_cleaned(bucket, clean), indent=2))
    else:
        click.echo(plain(*_bucket_lines(bucket, clean)))


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
    task: str, run_seconds: float, workers: int | None, as_json: bool, **chosen: Any
) -> None:
    """Print when jobs of TASK would start under its limit, or another.

    A dry run with simulated time, using the real limiter code. Nothing is written. Exits 0, or 2
    when it cannot run, with a sentence.
    """
    try:
        declared = current_host().tasks.get(task)
        if declared is None:
            raise _CannotRun(f"there is no task {task}")
        # NaN passes every bound of click's.
        if not run_seconds <= LONGEST_SECONDS:
            raise _CannotRun(f"--run-seconds is at most {LONGEST_SECONDS:,}, a year")
        if chosen["partition"] is not None and not chosen["from_live"]:
            raise _CannotRun("--partition says which bucket --from-live begins with: give both")
        names = ("rate", "per", "burst", "concurrency")
        change = LimitChange(**{name: chosen[name] for name in names})
        weight = _choose_weight(declared.declared.limit, chosen["weight"], chosen["trace"])
        limit = _choose_limit(declared.declared.limit, change, task, weight)
        jobs = _choose_jobs(chosen["count"], chosen["trace"], weight.each or 1)
        live = _live(limit.name, chosen["partition"]) if chosen["from_live"] else None
        found = Trial(jobs, run_seconds, workers, live).under(limit.shape)
    except (_CannotRun, TooLong) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(to_json(_trial_object(limit, weight, found)))
    else:
        click.echo(plain(*_trial_lines(limit, weight, found)))


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


# --- list and explain: limiters as JSON objects and as lines


def _find_limiter_row(
    session: Session, name: str, partition: str | None, now: datetime
) -> LimiterRow:
    """The limiter with this name. Raises `_CannotRun` when there is none, or when it has no partitions."""
    row = queries.find_limiter(session, name, now)
    if row is None:
        raise _CannotRun(f"no process has declared the limiter {name}")
    if "\0" in (partition or ""):
        raise _CannotRun("a partition cannot contain a NUL character")
    if not has_partition(session, row, partition or ""):
        raise _CannotRun(
            f"the limiter {name} has no partitions, and no job waits or runs in this one"
        )
    return row


def _summary(row: LimiterRow) -> dict[str, Any]:
    """One limiter of the list, as a JSON object."""
    return {
        "name": row.name,
        **row.declared,
        "waiting": row.waiting,
        "is_waiting_capped": row.waiting >= MOST_COUNTED,
        "holders": row.holders,
        "is_holders_capped": row.holders >= MOST_COUNTED,
        "is_cooling": row.cooldown is not None,
        "cooling_partitions": row.cooling,
    }


def _line(row: LimiterRow) -> str:
    """One limiter of the list, as a line."""
    cooling = ""
    if row.cooling:
        cooling = (
            f", {counted(row.cooling, 'partition')} cool{'s' if row.cooling == 1 else ''} down"
        )
    if row.cooldown is not None:
        cooling = ", cools down"
    allows = in_words(row.shape, row.partition_by)
    return (
        f"{row.name}: {allows}; {_counted(row.waiting)} waiting, {_counted(row.holders)} running"
        f"{cooling}"
    )


def _explain_bucket(session: Session, row: LimiterRow, partition: str | None) -> dict[str, Any]:
    """The state of a bucket, what blocks its next job and until when, as a JSON object.

    For a partitioned limiter without `partition`, the object holds what all partitions share, and the hot
    partitions: those for which most jobs wait. If the limiter no longer has partitions but jobs still wait in
    some, these are listed too.
    """
    only = "" if partition is None and row.partition_by is None else partition
    bucket = None if only is None else queries.find_bucket(session, row, only)
    hot, _ = list_hot_partitions(session, row, partition)
    waiting = row.waiting if only is None else queries.count_waiters(session, row.name, only)
    return {
        "limiter": row.name,
        "partition": only,
        "allows": in_words(row.shape, row.partition_by),
        "declared": row.declared,
        "cooldown": _cooldown(row, bucket),
        "waiting": waiting,
        "is_waiting_capped": waiting >= MOST_COUNTED,
        "bucket": None if bucket is None else _bucket(bucket),
        "holders": [_holder(h) for h in queries.list_holders(session, row.name, partition)],
        "hot_partitions": [{"partition": h.partition, "waiting": h.waiting} for h in hot],
    }


def _bucket_lines(facts: dict[str, Any], clean: Callable[[str], str]) -> Iterator[str]:
    """The same facts as lines of text."""
    of = f" for {clean(facts['partition'])}" if facts["partition"] else ""
    yield f"{facts['limiter']}{of}: {facts['allows']}"
    if cooldown := facts["cooldown"]:
        why = f": {clean(cooldown['reason'])}" if cooldown["reason"] else ""
        yield f"cools down until {cooldown['until']}, by {clean(cooldown['by'])}{why}"
    yield f"{_counted(facts['waiting'])} waiting"
    if bucket := facts["bucket"]:
        yield from _level_lines(bucket)
    for holder in facts["holders"]:
        is_other = holder["partition"] != (facts["partition"] or "")
        of = f" for {clean(holder['partition'])}" if is_other else ""
        yield f"  runs: job {holder['job_id']}{of}, weight {holder['weight']}, since {holder['since']}"
    for hot in facts["hot_partitions"]:
        yield f"  partition {clean(hot['partition']) or 'none'}: {_counted(hot['waiting'])} waiting"


def _level_lines(bucket: dict[str, Any]) -> Iterator[str]:
    if bucket["tokens"] is not None:
        yield f"{bucket['tokens']:.2f} of {bucket['burst']} tokens left"
    if bucket["concurrency"] is not None:
        yield f"{bucket['in_use']} of {bucket['concurrency']} places taken"
    yield f"queued jobs weigh {bucket['queued']} in total"
    if not bucket["blocks"]:
        yield f"a job of weight {bucket['weight']} starts now"
    for block in bucket["blocks"]:
        yield f"a job of weight {bucket['weight']} does not start: {BLOCKS[block['code']]} [{block['code']}]"
    if bucket["blocks"]:
        until = bucket["next_at"]
        needs = "it starts only after a running job ends, or the limit changes"
        yield f"it may start at {until}" if until else needs


def _bucket(state: BucketState) -> dict[str, Any]:
    level, shape, now = state.seen.level, state.shape, state.seen.now
    seconds = state.next_seconds
    return {
        "read_at": _text(now),
        "tokens": None if shape.rate is None else max(0.0, tokens_at(shape, level, now)),
        "burst": shape.burst,
        "in_use": level.in_use,
        "concurrency": shape.concurrency,
        "queued": level.queued,
        "weight": state.weight,
        "blocks": [{"code": block.code, "until": _text(block.until)} for block in state.blocks],
        "next_at": None if seconds is None else _text(now + timedelta(seconds=seconds)),
    }


def _cooldown(row: LimiterRow, bucket: BucketState | None) -> dict[str, Any] | None:
    found = row.cooldown or (bucket and bucket.cooldown)
    if not found:
        return None
    return {"until": _text(found.until), "by": found.by, "reason": found.reason}


def _holder(holder: HolderRow) -> dict[str, Any]:
    return {
        "job_id": holder.job_id,
        "partition": holder.partition,
        "weight": holder.weight,
        "since": _text(holder.taken_at),
        "worker": holder.worker,
    }


def _counted(number: int) -> str:
    return f"{number:,}" + "+" * (number >= MOST_COUNTED)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _clean() -> Callable[[str], str]:
    return Display(current_host().display, may_see=True).clean


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(inner, clean) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, clean) for inner in value]
    return clean(value) if isinstance(value, str) else value


# --- simulate: its jobs, its limit and its outcome


def _live(name: str, partition: str | None) -> Live:
    """The state of the bucket, and its waiting jobs."""
    with open_snapshot(current_host()) as read:
        row = _find_limiter_row(read.session, name, partition, read.now)
        if partition is None and row.partition_by is not None:
            raise _CannotRun(f"the limiter {name} has partitions: say which with --partition")
        return read_live(read.session, name, partition or "")


@dataclass(frozen=True)
class _Weight:
    """The weight of each job; None when a trace gives weights. `by` names what chooses it for real jobs."""

    each: int | None
    is_given: bool
    by: str | None

    @property
    def is_assumed(self) -> bool:
        """True when real jobs get their weight from their arguments and no `--weight` was given."""
        return self.by is not None and self.each is not None and not self.is_given


def _choose_weight(declared: Limit | None, given: int | None, trace: Path | None) -> _Weight:
    """The given weight, else the declared one. Raises `_CannotRun`."""
    if given is not None and trace is not None:
        raise _CannotRun("--weight works only with --count: a trace gives each job its own weight")
    depends_on_arguments = declared is not None and not isinstance(declared.weight, int)
    by = declared.stored["weight_by"] if declared is not None and depends_on_arguments else None
    usual = None if trace is not None else weight_of(declared)
    return _Weight(usual if given is None else given, given is not None, by)


def _choose_limit(declared: Limit | None, change: LimitChange, task: str, weight: _Weight) -> Limit:
    """The task's limit with the change applied. Raises `_CannotRun`."""
    if declared is not None and weight.is_given:
        # The simulated jobs have another weight, so the declared one must not refuse the change.
        declared = replace(declared, weight=1)
    if declared is None and change == LimitChange():
        raise _CannotRun(f"task {task} has no limit: give --rate and --per, or --concurrency")
    try:
        return change_limit(declared, change, task)
    except BadLimit as bad:
        raise _CannotRun(str(bad)) from bad


def _choose_jobs(count: int | None, trace: Path | None, weight: int) -> list[SimulatedJob]:
    """`count` jobs at once, or the jobs of a trace file. Raises `_CannotRun`."""
    if (count is None) == (trace is None):
        raise _CannotRun(
            "give --count (how many jobs arrive at once) or --trace (a file that says when they arrive), "
            "not both"
        )
    if count is not None:
        if count > MOST_JOBS:
            raise _CannotRun(f"--count is at most {MOST_JOBS:,}")
        return [SimulatedJob(0.0, weight)] * count
    assert trace is not None
    try:
        with trace.open(encoding="utf-8") as lines:
            jobs = read_trace(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise _CannotRun(f"{trace} cannot be read ({type(error).__name__})") from error
    except BadTrace as bad:
        raise _CannotRun(f"{trace}, {bad}") from bad
    if not jobs:
        raise _CannotRun(f"{trace} has no arrival in it")
    return jobs


def _trial_object(limit: Limit, weight: _Weight, found: TrialOutcome) -> dict[str, Any]:
    """The outcome as a JSON object."""
    return {
        "limiter": limit.name,
        "shape": asdict(limit.shape),
        "weight": weight.each,
        "weight_by": weight.by,
        "is_weight_assumed": weight.is_assumed,
        "started": found.started,
        "never": found.never,
        "first_start_seconds": found.first,
        "half_start_seconds": found.half,
        "last_start_seconds": found.last,
        "ended_seconds": found.ended,
        "most_at_once": found.most_at_once,
        "waits_seconds": {
            "median": found.wait_median,
            "p95": found.wait_p95,
            "most": found.wait_most,
        },
        "blocked_seconds": dict(found.blocked),
        "steps": _steps(found),
    }


def _trial_lines(limit: Limit, weight: _Weight, found: TrialOutcome) -> list[str]:
    """The outcome as lines."""
    lines = [
        f"{limit.name}: {in_words(limit.shape)}",
        f"{counted(found.started, 'job')} {'starts' if found.started == 1 else 'start'}",
    ]
    if weight.is_assumed:
        lines.insert(
            1,
            f"here each job weighs {weight.each}; real jobs get their weight from {weight.by}. "
            "Use --weight for another value",
        )
    if found.last is not None:
        lines[-1] += f", the last after {_span(found.last)}; all end after {_span(found.ended)}"
        lines.append(
            f"they wait {_span(found.wait_median)} (median), {_span(found.wait_p95)} (95 of 100), "
            f"{_span(found.wait_most)} (most); at most {found.most_at_once:,} run at once"
        )
    if found.never:
        lines.append(f"{found.never:,} can never start: {BLOCKS['limit_weight']}")
    for code, seconds in found.blocked:
        words = f"the next job in line waits {_span(seconds)} in total because {WAITS[code]}"
        lines.append(f"{words} [{code}]")
    for step in _steps(found):
        lines.append(f"  from {_span(step['from_seconds']):>9}  {step['started']:>7,} start")
    return lines


def _steps(found: TrialOutcome) -> list[dict[str, float]]:
    """How many jobs start in each tenth of the time up to the last start."""
    last = found.last
    if not last:
        return []
    counted = Counter(min(_STEPS - 1, int(start / last * _STEPS)) for start in found.starts)
    return [
        {"from_seconds": last * step / _STEPS, "started": counted[step]} for step in range(_STEPS)
    ]


def _span(seconds: float | None) -> str:
    assert seconds is not None  # called only for moments that exist
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3_600:.1f} h"
