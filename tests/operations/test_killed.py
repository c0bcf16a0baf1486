"""The loop is killed at random moments, and two processes run it: each job is changed once, with its receipt.

A small number of jobs in each run of the tests; `--operation-jobs 100000` prints the figures.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.audit.verify import verify
from tests.operations.conftest import WHY, Operations, counts_of
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench
from tests.support.plain import adopt_row, take_plain
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

RUN = """
from flask_opsjobs.loops import operate
from flask_opsjobs.loops.process import LoopsProcess
from tests.support.host import create_app
app = create_app()
print("ready", flush=True)
LoopsProcess(app.extensions["opsjobs"], [operate.LOOP], app.app_context).run()
"""
# As `enqueue_many` and one failed attempt leave them; the real engine would take minutes for so many.
FAILED = """
WITH made AS (
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
        due_at, dispatched_at, started_at, ended_at, ended_by, error, worker_id)
    SELECT 'note', 'default', 'default', 'failed', '{"text": ""}', 1, 1, 1, now(), now(), now(), now(), now(),
        'exhausted', 'Boom', %(worker)s FROM generate_series(1, %(number)s)
    RETURNING id
)
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome, error,
    failure_key)
SELECT id, 1, 1, 'worker-1', now(), now(), 'raised', 'Boom', decode(repeat('01', 16), 'hex') FROM made
"""


@pytest.fixture
def number(request: pytest.FixtureRequest) -> int:
    found: int = request.config.getoption("operation_jobs")
    return found


def make_failed(bench: Bench, number: int) -> None:
    bench.connection.execute(FAILED, {"number": number, "worker": bench.worker_id})
    bench.connection.execute("ANALYZE opsjobs.jobs")
    bench.connection.execute("ANALYZE opsjobs.attempts")


def start_loop(children: Children) -> Child:
    child = children.python("-c", RUN)
    child.wait_for("ready", 60)
    return child


def test_killed_at_random_moments_and_run_by_two_each_row_is_changed_once(
    operations: Operations, children: Children, number: int, host: Any
) -> None:
    bench = operations.bench
    make_failed(bench, number)
    began = time.monotonic()
    started = operations.operator.start("job.run_again", JobFilter(state="failed"), **WHY)
    froze = time.monotonic() - began
    # Run again makes a new job of each: one that was changed twice would show. Nothing is due but them.
    bench.rows(
        "INSERT INTO opsjobs.queues (name, is_paused, prefetch, created_at)"
        " VALUES ('default', false, 10000000, now()) RETURNING 1"
    )
    kills, chance = 0, random.Random(7)
    loops = [start_loop(children) for _ in range(2)]

    def handled() -> int:
        return sum(counts_of(operations.operation()).values())

    while operations.operation()["state"] == "running" and kills < 10:
        before = handled()
        # From here on any moment of a turn may be the one.
        aim = before + chance.randrange(1, max(2, number // 20))
        wait_until(lambda aim=aim: handled() >= min(aim, number) or settle(operations), 60)
        victim = loops.pop(0)
        victim.kill()
        kills += 1
        loops.append(start_loop(children))
    wait_until(lambda: finished(operations), 600)
    took = time.monotonic() - began
    operation = operations.operation()
    new = bench.row(
        "SELECT count(*) AS jobs, count(DISTINCT run_again_from) AS of FROM opsjobs.jobs"
        " WHERE run_again_from IS NOT NULL"
    )
    assert new == {"jobs": number, "of": number}
    named = bench.row(
        "SELECT count(*) AS n FROM opsjobs.operation_rows r JOIN opsjobs.jobs j ON j.id = r.new_job_id"
        " AND j.run_again_from = r.job_id WHERE r.operation_id = %s",
        started.id,
    )
    assert named["n"] == number
    assert counts_of(operation) == counted_rows(operations)
    with Session(host.engine) as session:
        assert verify(session, host.secrets).state == "intact"
    assert len(operations.audited()) <= 12
    print(f"{number:,} jobs: frozen in {froze:.2f} s, {kills} kills, {took:.1f} s in all")


CLEAR = """
import sys
from flask_opsjobs.operations.operator import BulkOperator
from tests.support.dying import die_before
from tests.support.host import create_app
number, queue = sys.argv[1:]
app = create_app()
with app.app_context():
    operator = BulkOperator(app.extensions["opsjobs"])
    die_before(int(number))
    operator.clear_queue(queue, actor="anna", reason="because it is a test")
"""


def test_killed_between_any_two_statements_a_clear_is_an_operation_or_cancels_nothing(
    operations: Operations, children: Children
) -> None:
    bench, exit_code, number, states = operations.bench, -signal.SIGKILL, 0, set()
    while exit_code == -signal.SIGKILL:
        number += 1
        queue = f"killed-{number}"
        ids = operations.enqueue(2, queue=queue)
        exit_code = children.python("-c", CLEAR, str(number), queue).wait(60)
        wait_until_rolled_back(bench.connection)
        found = bench.rows(
            "SELECT state, targets FROM opsjobs.operations WHERE query ->> 'queue' = %s", queue
        )
        assert all(row["targets"] == 2 for row in found)
        states.add(tuple(row["state"] for row in found))
        assert operations.states(ids) == {"available"}
        started = bench.row(
            "SELECT count(*) AS n FROM opsjobs.operations WHERE started_at IS NOT NULL"
        )
        assert operations.audited().count("operation.start") == started["n"]
        operations.operator.clear_queue(queue, **WHY)
        operations.pass_all()
        assert operations.states(ids) == {"canceled"}
    assert exit_code == 0
    assert states == {(), ("draft",), ("running",)}


def settle(operations: Operations) -> bool:
    """Let the new jobs finish, as workers would: the stages wait for that. Always False."""
    operations.bench.connection.execute("UPDATE opsjobs.workers SET heartbeat_at = now()")
    operations.bench.rows(
        """WITH ended AS (
               UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned',
                   attempt = 1, dispatch_no = 1
               WHERE run_again_from IS NOT NULL AND state IN ('available', 'queued') RETURNING id
           ), attempts AS (
               INSERT INTO opsjobs.attempts
                   (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome)
               SELECT id, 1, 1, 'worker-1', now(), now(), 'returned' FROM ended
           ) SELECT count(*) FROM ended"""
    )
    return False


def finished(operations: Operations) -> bool:
    settle(operations)
    return bool(operations.operation()["state"] == "finished")


def counted_rows(operations: Operations) -> dict[str, int]:
    rows = operations.bench.rows(
        "SELECT result, count(*) AS n FROM opsjobs.operation_rows WHERE operation_id = %s GROUP BY result",
        operations.operation()["id"],
    )
    return {row["result"]: row["n"] for row in rows}


def test_a_plain_job_is_asked_of_rq_at_most_once(
    operations: Operations, children: Children, redis_client: Redis
) -> None:
    """Between the commit and RQ's answer a process is killed: the row says so, and RQ is not asked again."""
    queue = Queue("default", connection=redis_client)
    jobs = [queue.enqueue(take_plain) for _ in range(12)]
    ids = [adopt_row(operations.bench, job, "queued") for job in jobs]
    operations.operator.start("job.cancel", JobFilter(origin="rq"), **WHY)
    assert children.python("-c", KILLED_BEFORE_ASKING).wait(60) == -signal.SIGKILL
    first = operations.receipts()[0]
    assert (first["job_id"], first["result"]) == (ids[0], "asked")
    assert jobs[0].get_status(refresh=True) == "queued"
    operations.run()
    results = [row["result"] for row in operations.receipts()]
    assert results == ["asked", *["done"] * 11]
    assert jobs[0].get_status(refresh=True) == "queued"
    assert {job.get_status(refresh=True) for job in jobs[1:]} == {"canceled"}
    assert counts_of(operations.operation()) == {"asked": 1, "done": 11}


KILLED_BEFORE_ASKING = """
import os, signal
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import operate
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.operations import operate as turns
from tests.support.host import create_app
host = create_app().extensions["opsjobs"]
turns.ask_rq_once = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Runner(operate.LOOP, host, "killed").run_once(connect_apart(host.engine))
"""


def test_killed_at_random_moments_each_plain_job_is_asked_of_rq_at_most_once(
    operations: Operations, children: Children, redis_client: Redis, tmp_path: Path, host: Any
) -> None:
    """Two processes, killed before, while and after RQ is asked: what nobody confirmed says so."""
    queue = Queue("default", connection=redis_client)
    jobs = [queue.enqueue(take_plain) for _ in range(MOST_ASKED)]
    ids = [adopt_row(operations.bench, job, "queued") for job in jobs]
    operations.operator.start("job.cancel", JobFilter(origin="rq"), **WHY)
    asked, most = tmp_path / "asked", tmp_path / "most"
    asked.touch()
    most.write_text("0")
    chance = random.Random(11)

    def start() -> Child:
        child = children.python("-c", RUN_AND_NOTE, str(asked), str(most))
        child.wait_for("ready", 60)
        return child

    def count_asked() -> int:
        return len(asked.read_text().split())

    def is_running() -> bool:
        return operations.operation()["state"] == "running"

    loops, kills = [start(), start()], 0
    while kills < 8 and is_running():
        aim = count_asked() + chance.randrange(1, 12)
        most.write_text(str(aim))
        wait_until(lambda aim=aim: count_asked() >= aim or not is_running(), 60)
        loops.pop(0).kill()
        kills += 1
        loops.append(start())
    most.write_text(str(MOST_ASKED + 1))
    wait_until(lambda: operations.operation()["state"] == "finished", 120)
    assert kills > 0
    found = Counter(asked.read_text().split())
    assert set(found.values()) == {1}, "none is asked twice"
    rows = {row["job_id"]: row["result"] for row in operations.receipts()}
    assert set(rows) == set(ids)
    assert set(rows.values()) <= {"done", "asked"}
    for id, job in zip(ids, jobs, strict=True):
        status = job.get_status(refresh=True)
        assert rows[id] == "asked" or (status, found[str(id)]) == ("canceled", 1)
        assert status == "canceled" or rows[id] == "asked"
    unconfirmed = [id for id, result in rows.items() if result == "asked"]
    assert len(unconfirmed) <= 20 * kills, "at most what was asked together"
    assert counts_of(operations.operation()) == counted_rows(operations)
    with Session(host.engine) as session:
        assert verify(session, host.secrets).state == "intact"


MOST_ASKED = 70
# Notes each job before RQ is asked about it; then the process may be killed at any moment. It asks about as
# many as the test says, and waits with the next one, so that a slow test kills it in the middle too.
RUN_AND_NOTE = """
import os, sys
from pathlib import Path
from flask_opsjobs.loops import operate
from flask_opsjobs.loops.process import LoopsProcess
from flask_opsjobs.operations import operate as turns
from tests.support.host import create_app
from tests.support.waiting import wait_until
asked, most = Path(sys.argv[1]), Path(sys.argv[2])
noted = os.open(asked, os.O_WRONLY | os.O_APPEND)
ask = turns.ask_rq_once
def note(host, question):
    os.write(noted, f"{question.job} ".encode())
    wait_until(lambda: len(asked.read_text().split()) <= int(most.read_text() or 0), 120)
    return ask(host, question)
turns.ask_rq_once = note
app = create_app()
print("ready", flush=True)
LoopsProcess(app.extensions["opsjobs"], [operate.LOOP], app.app_context).run()
"""
SCHEDULED = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at)
SELECT 'note', 'default', 'default', 'scheduled', '{"text": ""}', 1, 0, 0, now(), now() + interval '1 day'
FROM generate_series(1, %(number)s)
"""


def test_all_of_them_are_frozen_and_discarded_in_constant_memory(
    operations: Operations, children: Children, number: int
) -> None:
    """With `--operation-jobs 1000000` the largest operation there is."""
    bench = operations.bench
    bench.connection.execute(SCHEDULED, {"number": number})
    bench.connection.execute("ANALYZE opsjobs.jobs")
    loop = start_loop(children)
    chosen = JobFilter(state="scheduled")
    processes = (os.getpid(), loop.pid)
    before = [peak_memory(pid) for pid in processes]
    began = time.monotonic()
    started = operations.operator.start("job.discard", chosen, **WHY, authorize=False)
    froze = time.monotonic() - began
    assert started.targets == number
    wait_until(lambda: operations.operation()["state"] == "finished", 3_000)
    took = time.monotonic() - began - froze
    grew = [peak_memory(pid) - was for pid, was in zip(processes, before, strict=True)]
    assert max(grew) < 40_000, f"grew by {grew} kB"
    assert counts_of(operations.operation()) == {"done": number}
    ended = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'failed'")
    assert ended["n"] == number
    assert len(operations.audited()) <= 12
    print(
        f"{number:,} jobs: frozen in {froze:.2f} s, discarded in {took:.1f} s, "
        f"{number / took:,.0f} a second, grew by {grew} kB"
    )


def peak_memory(pid: int) -> int:
    """The most memory that a process had so far, in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
