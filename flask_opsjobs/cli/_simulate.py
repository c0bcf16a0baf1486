"""What `flask opsjobs limiter simulate` runs: the jobs to come, the limiter they meet, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DeclarationError
from ..limits.limit import Limit
from ..limits.simulation import NO_WORKER, Job, Simulated
from ..limits.trace import MOST_JOBS, BadTrace, read_trace
from ..limits.words import BLOCKS, in_words

_STEPS = 10


class CannotRun(Exception):
    """The simulation makes no sense as asked; the message is a sentence."""


@dataclass(frozen=True)
class Change:
    """What of the declaration is tried otherwise; None leaves it."""

    rate: float | None
    per: float | None
    burst: int | None
    concurrency: int | None


def choose_limit(declared: Limit | None, change: Change, worker: str) -> Limit:
    """The worker's limit with that change, checked as a declaration is. Raises `CannotRun`."""
    if declared is None and change == Change(None, None, None, None):
        raise CannotRun(f"worker {worker} has no limit: give --rate and --per, or --concurrency")
    tried = {name: value for name, value in asdict(change).items() if value is not None}
    kept: dict[str, Any] = {}
    if declared is not None:
        kept = {name: getattr(declared, name) for name in asdict(change)}
        if change.rate is not None:
            # The burst of another rate says nothing about this one.
            kept["burst"] = None
    weight = declared.weight if declared is not None and isinstance(declared.weight, int) else 1
    try:
        return Limit(declared.name if declared else worker, **{**kept, **tried}, weight=weight)
    except DeclarationError as error:
        raise CannotRun(str(error)) from error


def choose_jobs(count: int | None, trace: Path | None, weight: int) -> list[Job]:
    """So many jobs at once, or those of a trace. Raises `CannotRun`."""
    if (count is None) == (trace is None):
        raise CannotRun("say how many jobs come with --count, or when they come with --trace")
    if count is not None:
        if count > MOST_JOBS:
            raise CannotRun(f"--count is at most {MOST_JOBS:,}")
        return [Job(0.0, weight)] * count
    assert trace is not None
    try:
        with trace.open(encoding="utf-8") as lines:
            jobs = read_trace(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun(f"{trace} cannot be read ({type(error).__name__})") from error
    except BadTrace as bad:
        raise CannotRun(f"{trace}, {bad}") from bad
    if not jobs:
        raise CannotRun(f"{trace} has no arrival in it")
    return jobs


def as_json(limit: Limit, found: Simulated) -> dict[str, Any]:
    """The outcome as one object."""
    waits = sorted(found.waits)
    return {
        "schema_version": 1,
        "limiter": limit.name,
        "shape": asdict(limit.shape),
        "started": len(found.starts),
        "never": found.never,
        "first_start_seconds": min(found.starts, default=None),
        "last_start_seconds": max(found.starts, default=None),
        "ended_seconds": found.ended,
        "most_at_once": found.most_at_once,
        "waits_seconds": {
            "median": _quantile(waits, 0.5),
            "p95": _quantile(waits, 0.95),
            "most": _quantile(waits, 1.0),
        },
        "blocked_seconds": found.blocked,
        "steps": _steps(found),
    }


def lines(limit: Limit, found: Simulated) -> list[str]:
    """The outcome in words."""
    told = as_json(limit, found)
    waits = told["waits_seconds"]
    said = [f"{limit.name}: {in_words(limit.shape)}", f"{told['started']:,} jobs start"]
    if found.starts:
        said[-1] += (
            f", the last after {_span(told['last_start_seconds'])}; all end after {_span(found.ended)}"
        )
        said.append(
            f"they wait {_span(waits['median'])} (median), {_span(waits['p95'])} (95 of 100), "
            f"{_span(waits['most'])} (most); at most {found.most_at_once:,} run at once"
        )
    if found.never:
        said.append(f"{found.never:,} can never start: {BLOCKS['limit_weight']}")
    for code, seconds in sorted(found.blocked.items(), key=lambda pair: -pair[1]):
        why = "no worker is free" if code == NO_WORKER else BLOCKS[code]
        said.append(f"the first in line waits {_span(seconds)} because {why} [{code}]")
    for step in told["steps"]:
        said.append(f"  from {_span(step['from_seconds']):>9}  {step['started']:>7,} start")
    return said


def _steps(found: Simulated) -> list[dict[str, float]]:
    """How many start in each tenth of the time from the first to the last start."""
    if not found.starts or max(found.starts) == 0:
        return []
    last = max(found.starts)
    counted = Counter(min(_STEPS - 1, int(start / last * _STEPS)) for start in found.starts)
    return [
        {"from_seconds": last * step / _STEPS, "started": counted[step]} for step in range(_STEPS)
    ]


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3_600:.1f} h"
