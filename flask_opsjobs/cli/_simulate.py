"""Prepares the jobs and the limit of a simulation, and prints its outcome."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.words import counted
from ..limits.limit import BadLimit, Limit
from ..limits.simulation import (
    MOST_JOBS,
    BadTrace,
    LimitChange,
    SimulatedJob,
    TrialOutcome,
    change_limit,
    read_trace,
    weight_of,
)
from ..limits.words import BLOCKS, WAITS, in_words

_STEPS = 10


class CannotRun(Exception):
    """The simulation cannot run with these options; the message says why."""


@dataclass(frozen=True)
class Weight:
    """The weight of each job; None when a trace gives weights. `by` names what chooses it for real jobs."""

    each: int | None
    is_given: bool
    by: str | None

    @property
    def is_assumed(self) -> bool:
        """True when real jobs get their weight from their arguments and no `--weight` was given."""
        return self.by is not None and self.each is not None and not self.is_given


def choose_weight(declared: Limit | None, given: int | None, trace: Path | None) -> Weight:
    """The given weight, else the declared one. Raises `CannotRun`."""
    if given is not None and trace is not None:
        raise CannotRun("--weight works only with --count: a trace gives each job its own weight")
    depends_on_arguments = declared is not None and not isinstance(declared.weight, int)
    by = declared.stored["weight_by"] if declared is not None and depends_on_arguments else None
    usual = None if trace is not None else weight_of(declared)
    return Weight(usual if given is None else given, given is not None, by)


def choose_limit(declared: Limit | None, change: LimitChange, task: str, weight: Weight) -> Limit:
    """The task's limit with the change applied. Raises `CannotRun`."""
    if declared is not None and weight.is_given:
        # The simulated jobs have another weight, so the declared one must not refuse the change.
        declared = replace(declared, weight=1)
    if declared is None and change == LimitChange():
        raise CannotRun(f"task {task} has no limit: give --rate and --per, or --concurrency")
    try:
        return change_limit(declared, change, task)
    except BadLimit as bad:
        raise CannotRun(str(bad)) from bad


def choose_jobs(count: int | None, trace: Path | None, weight: int) -> list[SimulatedJob]:
    """`count` jobs at once, or the jobs of a trace file. Raises `CannotRun`."""
    if (count is None) == (trace is None):
        raise CannotRun(
            "give --count (how many jobs arrive at once) or --trace (a file that says when they arrive), "
            "not both"
        )
    if count is not None:
        if count > MOST_JOBS:
            raise CannotRun(f"--count is at most {MOST_JOBS:,}")
        return [SimulatedJob(0.0, weight)] * count
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


def as_json(limit: Limit, weight: Weight, found: TrialOutcome) -> dict[str, Any]:
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


def trial_lines(limit: Limit, weight: Weight, found: TrialOutcome) -> list[str]:
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
