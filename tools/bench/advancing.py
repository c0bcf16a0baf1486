"""Measures for the bench what ends of steps cost, by the statements of workers on connections like theirs.

Variants take turns in random order and are compared turn by turn: so a machine that others use at the same
time slows down all of them.
"""

from __future__ import annotations

import itertools
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from flask_opsjobs.core import sql
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt, write_outcomes
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.endings.pending_runs import PendingRuns
from flask_opsjobs.jobs.perform.outcomes import Outcome

ENDS = 1_000
# Ends in a flush, and in a turn. A turn takes 50 to 100 ms, so that runs are advanced as often as in life.
FLUSHES = {1: 100, 2: 100, 50: 500}
WORKERS = 4
LARGE = 10_000
_MAX_ARGS_BYTES = 1_000_000
# (name, variant, what it is compared with, at most so many times as much)
RATIOS = (
    ("a plain end, with the parts that append end events", "plain", "bare", 1.05),
    ("an end with its event", "event", "plain", 1.05),
    ("ends with advancing, into one fan-in of 1,000", "advanced", "plain", 1.35),
)

# Jobs as a worker runs them; the last is a step that waits for all others, when there is a run.
_JOBS = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, dispatch_no, created_at, due_at,
    dispatched_at, started_at, worker_id, attempt, workflow_id)
SELECT 'noop', 'default', 'default', CASE WHEN n <= %(started)s THEN 'started' ELSE 'deferred' END,
    '{"number": 7}', 1, 1, now(), now(), now(), now(),
    CASE WHEN n <= %(started)s THEN 1 END, 1, %(run)s::bigint
FROM generate_series(1, %(all)s) AS n RETURNING id
"""
_ATTEMPTS = """
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at)
SELECT unnest(%(ids)s::bigint[]), 1, 1, 1, 'worker', now()
"""
_RUN = """
INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at)
VALUES ('bench', 'running', '{}', '', %(steps)s, now()) RETURNING id
"""
_STEPS = """
INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, released_at)
SELECT id, %(run)s, 'step ' || n, n, 'job', pending, CASE WHEN pending = 0 THEN now() END
FROM unnest(%(ids)s::bigint[], %(pending)s::int[]) WITH ORDINALITY AS s(id, pending, n)
"""
_EDGES = """
INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
SELECT unnest(%(sources)s::bigint[]), unnest(%(targets)s::bigint[]), 'cancel'
"""


def measure(engine: Any, rounds: int) -> None:
    """Print all of it."""
    connections = [connect_apart(engine) for _ in range(WORKERS)]
    try:
        print(
            f"\n{ENDS:,} ends on {WORKERS} connections, medians of the ratios of turns, {rounds} rounds"
        )
        print(f"{'in flushes of':56}" + "".join(f"{size:>8}" for size in FLUSHES) + f"{'aim':>9}")
        found = [_ends(connections, size, rounds) for size in FLUSHES]
        for name, variant, base, most in RATIOS:
            ratios = (statistics.median(_paired(took[variant], took[base])) for took in found)
            print(f"{name:56}" + "".join(f"{ratio:8.2f}" for ratio in ratios) + f"{f'≤ {most}':>9}")
        plain = (
            statistics.median(took["plain"]) / part * 1000
            for took, part in zip(found, FLUSHES.values(), strict=True)
        )
        print(f"{'(a plain end, ms)':56}" + "".join(f"{each:8.3f}" for each in plain), flush=True)
        for name, prepare, most_seconds in (
            (f"fan-out, 1 step that ends and {LARGE:,} behind it", _fan_out, 0.5),
            (f"cascade, a chain of {LARGE:,} whose first step fails", _chain, 1.0),
        ):
            _print_turns(name, connections[0], prepare, min(rounds, 5), most_seconds)
    finally:
        for connection in connections:
            connection.close()


def _ends(connections: Sequence[Connection], flush: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of 1,000 ends in flushes of this size, by variant."""
    took: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        waiting = [PendingRuns(_MAX_ARGS_BYTES) for _ in connections]
        runs = {variant: _fan_in(connections[0]) for variant in ("event", "advanced")}
        # All in the order of their ids, which is how workers take jobs.
        ids = {variant: found for variant, (_, found) in runs.items()}
        ids |= {variant: _plain(connections[0]) for variant in ("bare", "plain")}
        for start in range(0, ENDS, FLUSHES[flush]):
            for variant in random.sample(list(ids), len(ids)):
                part = ids[variant][start : start + FLUSHES[flush]]
                seconds = _end_all(connections, waiting, part, flush, variant)
                if number:  # the first prepares the statements
                    took[variant].append(seconds)
        for run, _ in runs.values():
            _advance_all(connections[0], run)  # what the loop would do, and leaves nothing
    return took


def _end_all(
    connections: Sequence[Connection],
    waiting: Sequence[PendingRuns],
    ids: Sequence[int],
    flush: int,
    variant: str,
) -> float:
    """Seconds until all of these have ended, each connection with its share of the flushes."""
    flushes = [ids[start : start + flush] for start in range(0, len(ids), flush)]
    load = sql.load
    if variant == "bare":
        _replace_load(lambda name, **variant: without_end_events(load(name, **variant)))
    try:
        with ThreadPoolExecutor(len(connections)) as threads:
            began = time.perf_counter()
            work = [
                threads.submit(
                    _work,
                    connection,
                    flushes[index :: len(connections)],
                    waiting[index] if variant == "advanced" else None,
                )
                for index, connection in enumerate(connections)
            ]
            for each in work:
                each.result()
            return time.perf_counter() - began
    finally:
        _replace_load(load)


def _work(
    connection: Connection, flushes: Sequence[Sequence[int]], waiting: PendingRuns | None
) -> None:
    """End these as a recorder does, which advances the runs when they are due."""
    for ids in flushes:
        endings = [
            EndedAttempt(id, 1, 1, "worker", Outcome(kind="returned", output="7")) for id in ids
        ]
        ended = write_outcomes(connection, endings, read_clock(connection))
        assert len(ended) == len(ids)
        if waiting is not None:
            waiting.note(ended)
            if waiting.due_in() == 0:
                waiting.advance(connection)


@cache
def without_end_events(statement: str) -> str:
    """The statement that ends jobs, but for the parts that append end events."""
    if "step_ends AS" not in statement:
        return statement
    bare, found = re.subn(
        r", step_ends AS .*?(?=, task_ends AS|\nSELECT id, dispatch_no)",
        "",
        statement,
        flags=re.DOTALL,
    )
    assert found == 1, "retry_or_end_jobs.sql appends end events no more as this expects"
    return bare


def _replace_load(load: Callable[..., str]) -> None:
    setattr(sql, "load", load)  # noqa: B010 - mypy refuses an assignment to a function of another module


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _print_turns(
    name: str,
    connection: Connection,
    prepare: Callable[[Connection], int],
    rounds: int,
    most_seconds: float,
) -> None:
    whole, longest = [], []
    for _ in range(rounds):
        turns = _advance_all(connection, prepare(connection))
        whole.append(sum(turns))
        longest.append(max(turns) * 1000)
    print(
        f"{name:56}{statistics.median(whole):7.2f} s{f'≤ {most_seconds} s':>9}"
        f"   in turns of at most {statistics.median(longest):.0f} ms",
        flush=True,
    )


def _advance_all(connection: Connection, run: int) -> list[float]:
    """The seconds of each turn, until nothing is left to do."""
    turns = []
    while True:
        began = time.perf_counter()
        done = advance(connection, run, _MAX_ARGS_BYTES)
        turns.append(time.perf_counter() - began)
        assert done is not None, "nobody else advances it"
        if not done.has_more:
            return turns


def _plain(connection: Connection) -> list[int]:
    return _jobs(connection, ENDS, ENDS, None)


def _jobs(connection: Connection, number: int, started: int, run: int | None) -> list[int]:
    values = {"all": number, "started": started, "run": run}
    ids = [id for (id,) in connection.execute(_JOBS, values)]
    connection.execute(_ATTEMPTS, {"ids": ids[:started]})
    return ids


def _fan_in(connection: Connection) -> tuple[int, list[int]]:
    """A run of 1,000 started steps, and one that waits for all of them."""
    run, ids = _run(connection, ENDS + 1, ENDS, [0] * ENDS + [ENDS])
    _join(connection, ids[:-1], itertools.repeat(ids[-1], ENDS))
    return run, ids[:-1]


def _fan_out(connection: Connection) -> int:
    """A run of one step that has just ended, and 10,000 that wait for it."""
    run, ids = _run(connection, LARGE + 1, 1, [0] + [1] * LARGE)
    _join(connection, itertools.repeat(ids[0], LARGE), ids[1:])
    _end(connection, ids[0], Outcome(kind="returned"))
    return run


def _chain(connection: Connection) -> int:
    """A run of 10,000 steps one after another; the first has just failed."""
    run, ids = _run(connection, LARGE, 1, [0] + [1] * (LARGE - 1))
    _join(connection, ids[:-1], ids[1:])
    _end(connection, ids[0], Outcome(kind="raised", error="ValueError: no"))
    return run


def _run(
    connection: Connection, steps: int, started: int, pending: list[int]
) -> tuple[int, list[int]]:
    (run,) = connection.execute(_RUN, {"steps": steps}).fetchone() or (0,)
    ids = _jobs(connection, steps, started, run)
    connection.execute(_STEPS, {"ids": ids, "run": run, "pending": pending})
    return run, ids


def _join(connection: Connection, sources: Any, targets: Any) -> None:
    connection.execute(_EDGES, {"sources": list(sources), "targets": list(targets)})
    for table in ("jobs", "steps", "edges"):
        connection.execute(f"ANALYZE opsjobs.{table}")


def _end(connection: Connection, id: int, outcome: Outcome) -> None:
    endings = [EndedAttempt(id, 1, 1, "worker", outcome)]
    assert len(write_outcomes(connection, endings, read_clock(connection))) == 1
