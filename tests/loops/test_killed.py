"""A loop is killed between any two statements of a pass that detects, counts failures or adopts.

The first process is killed before its first statement, the next one before its second, and so on, until one
comes to its end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.loops import detect, roll_up
from flask_opsjobs.loops.loop import Loop, Runner
from tests.conftest import MakeBench
from tests.engine.adopted.conftest import Adopter, return_it
from tests.failures.conftest import FailureBench
from tests.support.engine import Bench
from tests.support.processes import Children
from tests.support.task_numbers import folded, slow_count
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Of all detectors only this one looks.
KILLED = """
import sys
from datetime import datetime
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import LOOPS, detect
from flask_opsjobs.loops.loop import Runner
from tests.support.dying import die_before
from tests.support.host import create_app
number, name, when = sys.argv[1:]
detect.DETECTORS = {"worker_missing": detect.DETECTORS["worker_missing"]}
(loop,) = [loop for loop in LOOPS if loop.name == name]
host = create_app().extensions["opsjobs"]
connection = connect_apart(host.engine)
die_before(int(number))
Runner(loop, host, "killed").run_once(connection, datetime.fromisoformat(when))
"""

LOCKS = "SELECT 1 AS n FROM pg_locks WHERE locktype = 'advisory'"


def kill_between_any_two_statements(
    bench: Bench, children: Children, loop: Loop, when: datetime, *tables: str
) -> int:
    """Kill processes until one comes to its end; return how many it took. No other one leaves anything."""

    def rows() -> list[Any]:
        return [bench.rows(f"SELECT * FROM opsjobs.{table} t ORDER BY t") for table in tables]

    before, number, exit_code = rows(), 0, -signal.SIGKILL
    while exit_code == -signal.SIGKILL:
        assert rows() == before
        number += 1
        words = (str(number), loop.name, when.isoformat())
        exit_code = children.python("-c", KILLED, *words).wait(60)
        # The lock of the loop goes with the transaction of the dead process.
        wait_until(lambda: bench.rows(LOCKS) == [], 10)
    assert exit_code == 0
    assert rows() != before
    return number


def set_state(bench: Bench, name: str, state: str) -> None:
    bench.rows(
        "UPDATE opsjobs.workers SET state = %s, ended_at = clock_timestamp() WHERE name = %s RETURNING 1",
        state,
        name,
    )


def test_a_detecting_pass(bench: Bench, children: Children) -> None:
    """It opens, refreshes, reopens and clears an incident."""
    runner, now = Runner(detect.LOOP, bench.host, "one"), read_clock(bench.connection)

    def look(after: float) -> None:
        runner.run_once(bench.connection, now + timedelta(seconds=after))

    for name in ("opens", "stays", "reopens", "clears"):
        Bench(bench.host, name).close()
    for name in ("stays", "reopens", "clears"):
        set_state(bench, name, "missing")
    look(0)
    set_state(bench, "reopens", "stopped")
    for after in (5, 10, 15):
        look(after)
    set_state(bench, "clears", "stopped")
    look(20)
    for name in ("opens", "reopens"):
        set_state(bench, name, "missing")
    when = now + timedelta(seconds=33)
    tables = ("incidents", "evidence", "pending_findings", "loop_runs")
    assert kill_between_any_two_statements(bench, children, detect.LOOP, when, *tables) > 10
    found = bench.rows(
        "SELECT subject, state, episode, seen_count FROM opsjobs.incidents ORDER BY subject"
    )
    assert [tuple(row.values()) for row in found] == [
        ("worker/clears", "resolved", 1, 4),
        ("worker/opens", "open", 1, 1),
        ("worker/reopens", "open", 2, 2),
        ("worker/stays", "open", 1, 6),
    ]
    kinds = bench.rows(
        "SELECT kind, sum(count)::int AS n FROM opsjobs.evidence"
        " WHERE kind IN ('opened', 'reopened', 'resolved') GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row.values()) for row in kinds] == [
        ("opened", 4),
        ("reopened", 1),
        ("resolved", 2),
    ]


def test_a_pass_that_counts_failures(
    bench: Bench,
    make_bench: MakeBench,
    record_job: Callable[..., int],
    children: Children,
) -> None:
    """It counts a known failure, a new one and a death, and opens one again that was resolved."""
    failing = FailureBench(bench, make_bench, record_job)
    for key in ("known", "resolved"):
        failing.fail(key, on=failing.start_worker(1))
    failing.count()
    bench.rows(
        "UPDATE opsjobs.failures SET state = 'resolved', decided_at = clock_timestamp(), decided_by = 'ada',"
        " resolved_after = 1 WHERE title LIKE '%%resolved%%' RETURNING 1"
    )
    new = failing.start_worker(2)
    for key in ("known", "new", "resolved"):
        failing.fail(key, on=new)
    failing.fail("dead", on=new, kind="died", error="its process died", death="out_of_memory")
    tables = (
        *("attempts", "failures", "failure_minutes", "failure_hours", "failure_deploys"),
        *("task_deaths", "enqueue_counts", "job_count_deltas", "loop_runs"),
        *("task_end_deltas", "task_minutes", "task_hours"),
    )
    number = kill_between_any_two_statements(bench, children, roll_up.LOOP, failing.now, *tables)
    assert number > 10
    assert [(row["title"], row["number"], row["state"]) for row in failing.failures()] == [
        ("ValueError: known 7", 2, "open"),
        ("ValueError: resolved 7", 2, "open"),
        ("ValueError: new 7", 1, "open"),
        ("died: out of memory", 1, "open"),
    ]
    sums = [
        bench.row(f"SELECT sum(number)::int AS n FROM opsjobs.{table}")["n"]
        for table in ("failure_minutes", "failure_hours", "failure_deploys", "task_deaths")
    ]
    assert sums == [6, 6, 6, 1]

    def query(statement: str) -> list[Any]:
        return [tuple(row.values()) for row in bench.rows(statement)]

    assert folded(query) == slow_count(query)
    assert failing.count() == 0


def test_an_adopting_pass(bench: Bench, children: Children, redis_client: Redis) -> None:
    """It meets a new job, one that has moved and one that is gone. It writes in several transactions."""
    queue, number, exit_code = Queue("mail", connection=redis_client), 0, -signal.SIGKILL
    while exit_code == -signal.SIGKILL:
        number += 1
        moves, goes = (
            queue.enqueue(return_it, job_id=f"{word}-{number}") for word in ("moves", "goes")
        )
        Adopter(bench).step(0)
        moves.cancel()
        goes.delete()
        queue.enqueue(return_it, number, job_id=f"new-{number}")
        when = read_clock(bench.connection).isoformat()
        exit_code = children.python("-c", KILLED, str(number), "adopt", when).wait(60)
        halves = "SELECT id FROM opsjobs.jobs WHERE id NOT IN (SELECT job_id FROM opsjobs.rq_facts)"
        assert bench.rows(halves) == []
        # What a new process does.
        after = Adopter(bench)
        for _ in range(2):
            after.step(1)
        (new,), (moved,), (gone,) = (
            after.jobs(f"{word}-{number}") for word in ("new", "moves", "goes")
        )
        assert (new["state"], new["arguments"]) == ("queued", f'{{"*args": [{number}]}}')
        assert moved["state"] == "canceled"
        assert (gone["state"], gone["ended_by"]) == ("unknown", "unseen")
        assert gone["ended_after"] <= gone["ended_at"]
    assert exit_code == 0
    assert number > 8
