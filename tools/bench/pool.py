"""Measures the pool against its peers in one run: `make bench ARGS="--only-pool --rounds 3"`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tools.bench.peers import BEFORE, PGQUEUER, code_of, python_with

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

_LATENCIES = 60

# name: (function in run, kind, how many jobs). A function that returns several numbers has several figures.
CASES: dict[str, tuple[str, str, int]] = {
    "plain RQ, forking": ("plain_run", "forking", 200),
    "plain RQ, SimpleWorker": ("plain_run", "simple", 1_000),
    "plain RQ, forking, a row of the host": ("plain_touch", "forking", 200),
    "two children": ("managed_run", "2x1000", 20_000),
    "two children, Redis away": ("without_redis", "2x1000", 20_000),
    "two children, 50 queues": ("many_queues", "2x1000", 20_000),
    "default, one child": ("managed_run", "1x1000", 10_000),
    "K = 1 with a spare": ("managed_run", "1x1", 400),
    "four children, a row of the host": ("managed_touch", "4x1000", 5_000),
    "plain RQ jobs, one kept child": ("plain_on_ours", "1x1000", 1_000),
    "200,000 jobs, last fifth ÷ first": ("fifths", "2x1000", 200_000),
    "the same under an old snapshot": ("fifths", "2x1000+", 200_000),
    "jobs of 30 ms, two children": ("of_30_ms", "2x1000", 600),
    "one worker": ("shares", "1", 20_000),
    "two workers": ("shares", "2", 20_000),
    "four workers": ("shares", "4", 20_000),
    "one limiter, 4 at once": ("whole_workers.limited_run", "4x1000", 600),
    "memory of 8 children ÷ parent": ("whole_workers.memory", "8x0", 8_000),
    "short beside 2 s jobs": ("whole_workers.worst_wait", "1x2", 3),
    "short beside a worker full of 2 s jobs": ("whole_workers.worst_wait", "2x1", 3),
    "take of 400 from 50 queues": ("whole_workers.takes", "400", 20_000),
    "2,000 steps in 20 layers": ("whole_workers.graph_run", "1x2", 3),
}


class Row(NamedTuple):
    """A line of the table: the median of a figure, divided by that of another one, and what is aimed at."""

    words: str
    ours: str
    theirs: str | None
    aim: float
    is_most: bool = False


ROWS = (
    Row("no-op jobs, two children ÷ plain RQ forking", "two children", "plain RQ, forking", 150),
    Row("÷ PgQueuer 1.6", "two children", "PgQueuer", 0.9),
    Row("default ÷ plain RQ forking", "default, one child", "plain RQ, forking", 110),
    Row("200,000 jobs: last fifth ÷ first", "200,000 jobs, last fifth ÷ first", None, 0.75),
    Row("the same under an old snapshot", "the same under an old snapshot", None, 0.75),
    Row("K = 1 ÷ plain RQ forking", "K = 1 with a spare", "plain RQ, forking", 1.8),
    Row(
        "a row of the host, four children ÷ plain RQ forking",
        "four children, a row of the host",
        "plain RQ, forking, a row of the host",
        35,
    ),
    Row("enqueue to start, idle, p50 in ms", "start p50", None, 3, is_most=True),
    Row("enqueue to start, idle, p95 in ms", "start p95", None, 6, is_most=True),
    Row(
        "plain RQ jobs, one kept child ÷ SimpleWorker",
        "plain RQ jobs, one kept child",
        "plain RQ, SimpleWorker",
        1.1,
    ),
    Row("two workers on one queue ÷ one", "two workers rate", "one worker rate", 0.85),
    Row("their smallest share ÷ largest", "two workers evenness", None, 0.7),
    Row("four workers on one queue ÷ one", "four workers rate", "one worker rate", 0.85),
    Row("their smallest share ÷ largest", "four workers evenness", None, 0.7),
    Row(
        "jobs of 30 ms: dispatches ÷ jobs",
        "jobs of 30 ms, two children dispatches",
        None,
        1.2,
        is_most=True,
    ),
    Row("jobs/s ÷ what two can do", "jobs of 30 ms, two children share", None, 0.9),
    Row(
        "600 jobs of one limiter, 4 at once ÷ `--simple` of before",
        "one limiter, 4 at once",
        "one limiter before the pool",
        1.5,
    ),
    Row(
        "all memory of 8 children of 0.9 GB ÷ parent",
        "memory of 8 children ÷ parent",
        None,
        1.3,
        is_most=True,
    ),
    Row(
        "short beside 2 s jobs, worst wait in ms",
        "short beside 2 s jobs",
        None,
        200,
        is_most=True,
    ),
    Row(
        "the same, two workers, one full of 2 s jobs",
        "short beside a worker full of 2 s jobs",
        None,
        250,
        is_most=True,
    ),
    Row(
        "50 queues: a take of 400, p95 in ms", "take of 400 from 50 queues", None, 10, is_most=True
    ),
    Row("2,000 steps in 20 layers, in s", "2,000 steps in 20 layers", None, 1.5, is_most=True),
    Row("50 queues ÷ one queue", "two children, 50 queues", "two children", 0.8),
    Row("Redis away ÷ with Redis", "two children, Redis away", "two children", 0.8),
)


def measure(bench: Bench, rounds: int, only: Sequence[str]) -> None:
    """Print all figures and the table, medians of so many rounds. `only` are parts of the names of cases."""
    os.environ["BENCH_LIMIT"] = ",,,4"
    runs: dict[str, Callable[[], Any]] = {
        name: partial(bench.measure, *case, None) for name, case in CASES.items()
    }
    runs |= {
        "PgQueuer": partial(_pgqueuer, bench, 20_000),
        "one limiter before the pool": partial(_limited_before, bench, 600),
        "start": partial(_latencies, bench),
    }
    found: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, Exception] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            if any(part in name for part in only):
                try:
                    for figure, value in _figures(name, run()):
                        found[figure].append(value)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    # The others are measured all the same.
                    failed[name] = error
    print(f"{rounds} rounds\n{'':48}{'median':>9}{'min':>9}{'max':>9}")
    for name, values in found.items():
        print("".join([f"{name:48}", *map(_number, (_median(values), min(values), max(values)))]))
    _print_table({name: _median(values) for name, values in found.items()})
    if failed:
        raise SystemExit("\n\n".join(f"{name}: {error}" for name, error in failed.items()))


def _figures(name: str, value: Any) -> Iterable[tuple[str, float]]:
    if isinstance(value, dict):
        return [(f"{name} {key}", one) for key, one in value.items()]
    return [(name, value)]


def _print_table(medians: Mapping[str, float]) -> None:
    print(f"\n{'medians':56}{'got':>9}{'aim':>9}")
    for row in ROWS:
        theirs = medians.get(row.theirs) if row.theirs is not None else 1.0
        if row.ours in medians and theirs is not None:
            aim = f"{'≤' if row.is_most else '≥'} {row.aim:g}"
            print(f"{row.words:56}{medians[row.ours] / theirs:9.2f}{aim:>9}")


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _number(value: float) -> str:
    return f"{value:9,.0f}" if value >= 20 else f"{value:9.2f}"


def _pgqueuer(bench: Bench, count: int) -> float:
    """Jobs a second of PgQueuer, asyncio in one process, on the same server."""
    url = bench.databases.empty()
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    python = python_with("pgqueuer", *PGQUEUER)
    env = {"BENCH_DATABASE_URL": plain}
    return _apart(bench, url, [python, "tools/bench/run_pgqueuer.py", str(count)], env)


def _limited_before(bench: Bench, count: int) -> float:
    """Jobs a second of one limiter, four at once, by the code from before the pool."""
    url = bench.databases.empty()
    env = {**bench.env(url), "PYTHONPATH": code_of(BEFORE)}
    bench.valkey.flushall()
    return _apart(bench, url, [sys.executable, "tools/bench/run_before.py", str(count)], env)


def _apart(bench: Bench, url: Any, command: list[str], env: dict[str, str]) -> float:
    """What a process of other code prints last, on a database that is dropped then."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
        )
    finally:
        bench.databases.drop(url)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def _latencies(bench: Bench) -> dict[str, float]:
    """Of a job of ours, and of a plain one on SimpleWorker, in turn."""
    found = {}
    for kind, values in bench.latencies("simple", _LATENCIES).items():
        ordered, prefix = sorted(values), "" if kind == "managed" else "plain RQ "
        found[f"{prefix}p50"] = _median(ordered)
        found[f"{prefix}p95"] = ordered[int(len(ordered) * 0.95)]
    return found
