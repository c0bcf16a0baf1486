"""Measures a large batch for the bench: how it is added, what the ends of its members cost, and its end."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import psycopg

from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt, write_outcomes
from flask_opsjobs.endings.pending_batches import PendingBatches
from flask_opsjobs.jobs.perform.outcomes import Outcome

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

# Ends in a flush, and in a turn of one variant.
FLUSH, TURN, TURNS = 50, 500, 20
BATCH = 1  # the first of its database

# Jobs as a worker runs them. A batch that is half done also has members that have ended.
_START = """
WITH started AS (
    UPDATE opsjobs.jobs SET state = 'started', dispatch_no = 1, attempt = 1, worker_id = 1,
        dispatched_at = now(), started_at = now()
    WHERE id IN (
        SELECT id FROM opsjobs.jobs WHERE state = 'available' AND batch_id IS NOT DISTINCT FROM %(batch)s
        ORDER BY id LIMIT %(number)s)
    RETURNING id
), attempts AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at)
    SELECT id, 1, 1, 1, 'worker', now() FROM started
)
SELECT id FROM started ORDER BY id
"""
# All members but the one in the middle, as if workers had ended them.
_END_OTHERS = """
WITH ended AS (
    UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned'
    WHERE batch_id = %(batch)s AND ended_at IS NULL AND id <> %(last)s RETURNING 1
)
INSERT INTO opsjobs.batch_end_events (batch_id, kind, ended_by, number)
SELECT %(batch)s, 'finished', 'returned', count(*) FROM ended
"""


def measure(bench: Bench, members: int, rounds: int) -> None:
    """Print all of it."""
    _measure_adding(bench, members, rounds)
    url = bench.databases.migrated()
    bench.run(url, "memory_of_many", "-", TURN * TURNS * 2, None)
    bench.run(url, "memory_of_batch", "-", members, None)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE opsjobs.jobs")
        _measure_ends(connection)
        _measure_end(connection)
    bench.databases.drop(url)


def _measure_adding(bench: Bench, members: int, rounds: int) -> None:
    """Each in a process and on a database of its own, by turns."""
    ratios, found = [], {}
    for number in range(rounds):
        kinds = ("memory_of_many", "memory_of_batch")
        for kind in kinds if number % 2 else kinds[::-1]:
            found[kind] = bench.measure(kind, "-", members, None)
        plain, batch = (found[kind] for kind in kinds)
        ratios.append(batch["seconds"] / plain["seconds"])
        for name, took in (("enqueue_many", plain), ("a batch", batch)):
            print(
                f"{f'{name}, {members:,} jobs from a generator':56}{took['seconds']:8.2f} s"
                f"{took['grew_mb']:8.1f} MB more memory",
                flush=True,
            )
    print(f"{'a batch, as a ratio':56}{statistics.median(ratios):8.2f}  {'≤ 1.15':>9}", flush=True)


def _measure_ends(connection: Connection) -> None:
    """Ends of members and of plain jobs, by turns in random order, on one connection."""
    started = {"plain": None, "member": BATCH}
    ids = {
        name: _ids(connection, _START, {"batch": batch, "number": TURN * TURNS})
        for name, batch in started.items()
    }
    pending = PendingBatches(only_last=True)
    took: dict[str, list[float]] = defaultdict(list)
    for start in range(0, TURN * TURNS, TURN):
        for name in random.sample(list(ids), len(ids)):
            part = ids[name][start : start + TURN]
            began = time.perf_counter()
            for place in range(0, TURN, FLUSH):
                pending.note(_end(connection, part[place : place + FLUSH]))
                if pending.due_in() == 0:
                    pending.advance(connection)
            took[name].append(time.perf_counter() - began)
    ratio = statistics.median(a / b for a, b in zip(took["member"], took["plain"], strict=True))
    name = f"ends of members beside plain ends, in flushes of {FLUSH}"
    print(f"{name:56}{ratio:8.2f}  {'≤ 1.05':>9}", flush=True)


def _measure_end(connection: Connection) -> None:
    """From the end of the last member to the end of the batch, as the recorder of its worker does it.

    All others have ended at once, so the first probe walks all their entries in the index of open members.
    In life each probe walks those that have ended since the one before.
    """
    (last,) = _ids(connection, _START, {"batch": BATCH, "number": 1})
    connection.execute(_END_OTHERS, {"batch": BATCH, "last": last})
    pending = PendingBatches(only_last=True)
    pending.add([BATCH])
    probe = _advance(pending, connection)
    print(f"{'a probe after all other members have ended at once':56}{probe:8.1f} ms", flush=True)
    pending.note(_end(connection, [last]))
    took = _advance(pending, connection)
    statement = "SELECT state, enqueued, lost FROM opsjobs.batches WHERE id = %s"
    state, enqueued, lost = connection.execute(statement, [BATCH]).fetchone() or (None, 0, 0)
    assert (state, lost) == ("finished", 0), state
    print(
        f"{f'its end after that of its last member, of {enqueued:,}':56}{took:8.1f} ms", flush=True
    )


def _advance(pending: PendingBatches, connection: Connection) -> float:
    """The milliseconds that it takes, once it may."""
    time.sleep(pending.due_in())
    began = time.perf_counter()
    pending.advance(connection)
    return (time.perf_counter() - began) * 1000


def _end(connection: Connection, ids: list[int]) -> Any:
    endings = [EndedAttempt(id, 1, 1, "worker", Outcome(kind="returned", output="7")) for id in ids]
    ended = write_outcomes(connection, endings, read_clock(connection))
    assert len(ended) == len(ids)
    return ended


def _ids(connection: Connection, statement: str, values: dict[str, Any]) -> list[int]:
    return [id for (id,) in connection.execute(statement, values)]
