"""The process of the loops: it works, outlives what fails, waits for Postgres, and stops when told."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import psycopg
import pytest

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.outage import EndedOutage, Outage
from flask_opsjobs.errors import SchemaBehind
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.detectors import postgres_away
from flask_opsjobs.loops import LOOPS, Loop, Pass
from flask_opsjobs.loops.loop import IDLE, Runner, every
from flask_opsjobs.loops.process import LoopsProcess, LoopThread
from tests.support import host as host_module
from tests.support.database import Administrator
from tests.support.engine import Bench
from tests.support.processes import Children
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]


class Counting:
    """A loop that counts its passes and may do something in them."""

    def __init__(self, act: Callable[[Pass], None] = lambda context: None) -> None:
        self.passes = 0
        self._act = act
        self.loop = Loop("counting", every(0.01), self._run, is_alone=True)

    def _run(self, context: Pass) -> str:
        self.passes += 1
        self._act(context)
        return IDLE


def told_after(condition: Callable[[], bool], *numbers: int) -> threading.Thread:
    """Signals this process once `condition` holds, as a terminal or a supervisor would."""

    def tell() -> None:
        wait_until(condition, 20)
        for number in numbers:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_told(host: Host, number: int) -> None:
    one, two = Counting(), Counting()
    process = LoopsProcess(host, [one.loop, Loop("other", every(0.01), two.loop.run, True)])
    told_after(lambda: one.passes > 3 and two.passes > 3, number)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert process.run() == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_loop_that_always_fails_holds_up_no_other(host: Host) -> None:
    def fail(context: Pass) -> None:
        raise RuntimeError("always")

    bad, good = Counting(fail), Counting()
    process = LoopsProcess(host, [bad.loop, Loop("other", every(0.01), good.loop.run, True)])
    told_after(lambda: bad.passes > 5 and good.passes > 5, signal.SIGTERM)
    assert process.run() == 0


def test_a_stuck_pass_holds_up_no_other_and_a_second_signal_leaves_it(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    def wait_at_gate(context: Pass) -> None:
        gate.wait(60)

    stuck, good = Counting(wait_at_gate), Counting()
    process = LoopsProcess(host, [stuck.loop, Loop("other", every(0.01), good.loop.run, True)])
    told = told_after(lambda: good.passes > 5, signal.SIGTERM)
    threading.Thread(
        target=lambda: (
            told.join(),
            wait_until(lambda: not process.is_running, 20),
            os.kill(os.getpid(), signal.SIGTERM),
        ),
        daemon=True,
    ).start()
    assert process.run() == 1
    assert "stopped in the middle of a pass: opsjobs-counting" in caplog.text
    gate.set()
    ours = {"opsjobs-counting", "opsjobs-other"}
    wait_until(lambda: not any(thread.name in ours for thread in threading.enumerate()))


A_SIGNAL_THAT_THE_MAIN_THREAD_DOES_NOT_WAIT_FOR = """
import os, signal, sys, threading
from tests.support.host import create_app
from flask_opsjobs.loops.process import LoopsProcess
# A thread of the host's from before blocks no signal: Linux gives it those that the main thread blocks.
threading.Thread(target=threading.Event().wait, daemon=True).start()
watch = LoopsProcess._watch
def told(self):
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
    return watch(self)
LoopsProcess._watch = told
sys.exit(LoopsProcess(create_app().extensions["opsjobs"]).run())
"""


def test_a_signal_that_another_thread_gets_stops_it_in_order(children: Children) -> None:
    script = A_SIGNAL_THAT_THE_MAIN_THREAD_DOES_NOT_WAIT_FOR
    started = children.python("-c", script)
    assert started.wait(30) == 0
    assert "still here" in started.log


def test_more_to_do_is_done_at_once(host: Host) -> None:
    counting = Counting(lambda context: context.again())
    loop = Loop("greedy", every(3600), counting.loop.run, True)
    told_after(lambda: counting.passes > 5, signal.SIGTERM)
    assert LoopsProcess(host, [loop]).run() == 0


def test_each_pass_runs_inside_what_surrounds_it(app: Any, host: Host) -> None:
    from flask import current_app

    seen: list[str] = []
    counting = Counting(lambda context: seen.append(current_app.name))
    told_after(lambda: counting.passes > 2, signal.SIGTERM)
    assert LoopsProcess(host, [counting.loop], surround=app.app_context).run() == 0
    assert seen[0] == "host"


def test_without_a_schema_it_says_so(make_app: Any, empty_database_url: str) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    with pytest.raises(SchemaBehind, match="flask db upgrade"):
        LoopsProcess(app.extensions["opsjobs"]).run()


@pytest.mark.sessions
def test_a_broken_connection_is_made_anew(
    host: Host, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with running(host) as loops:
        bench.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with caplog.at_level(logging.WARNING):
            wait_for_passes(loops)
    assert caplog.text.count("Postgres is away") == 1
    assert caplog.text.count("Postgres is back") == 1


@pytest.mark.chaos
def test_a_database_that_turns_read_only_is_waited_for_and_said_once(
    host: Host, administrator: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    with running(host, 2) as loops:
        administrator.fail_over()
        wait_until(lambda: "(ReadOnlySqlTransaction: cannot execute" in caplog.text)
        administrator.fail_back()
        wait_until(lambda: "Postgres is back" in caplog.text, 30)
        wait_for_passes(loops)
    assert caplog.text.count("Postgres is away") == caplog.text.count("Postgres is back") == 1
    assert caplog.text.count("ReadOnlySqlTransaction") == 1


def test_tables_that_are_missing_are_said_so(
    host: Host, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """As after the schema was dropped: Postgres answers."""
    with running(host):
        bench.connection.execute("ALTER SCHEMA opsjobs RENAME TO away")
        wait_until(lambda: "the tables of opsjobs are missing (UndefinedTable: " in caplog.text)
        bench.connection.execute("ALTER SCHEMA away RENAME TO opsjobs")
        wait_until(lambda: "the tables of opsjobs are back after" in caplog.text, 30)
    assert "Postgres is" not in caplog.text


@pytest.mark.chaos
def test_postgres_away_is_waited_for_and_said_once(
    make_app: Any, own_postgres: Any, own_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = make_app(SQLALCHEMY_DATABASE_URI=own_database_url).extensions["opsjobs"]
    with running(host, 2) as loops:
        own_postgres.kill()
        wait_until(lambda: "Postgres is away" in caplog.text)
        own_postgres.start()
        wait_for_passes(loops)
    assert caplog.text.count("Postgres is away") == 1
    assert caplog.text.count("Postgres is back") == 1


@pytest.mark.chaos
@pytest.mark.slow
def test_postgres_that_was_stopped_for_longer_is_an_incident_when_it_is_back(
    make_app: Any, own_postgres: Any, own_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = make_app(SQLALCHEMY_DATABASE_URI=own_database_url).extensions["opsjobs"]
    with running(host) as loops:
        own_postgres.stop()
        wait_until(lambda: "Postgres is away" in caplog.text, 30)
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > postgres_away.SHORTEST.total_seconds(), 30)
        own_postgres.start()
        wait_for_passes(loops, 60)
    with closing(connect_apart(host.engine)) as connection:
        found = connection.execute(
            "SELECT state, severity, seen_at - opened_at FROM opsjobs.incidents"
            " WHERE class = 'postgres_away'"
        ).fetchall()
    ((state, severity, lasted),) = found
    assert (state, severity) == ("open", "critical")
    assert lasted > postgres_away.SHORTEST


def test_an_outage_that_cannot_be_written_yet_is_written_later(
    host: Host, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Postgres has answered, and cannot write incidents yet."""
    outage = new_outage()
    now = time.monotonic()
    outage.give_back(EndedOutage(now - 60, now, "OperationalError: gone"))
    bench.connection.execute("ALTER TABLE opsjobs.incidents RENAME TO incidents_of_before")
    with running(host, outage=outage):
        bench.connection.execute("ALTER TABLE opsjobs.incidents_of_before RENAME TO incidents")
        wait_until(lambda: bench.rows("SELECT id FROM opsjobs.incidents"), what="the incident")
    (found,) = bench.rows("SELECT class, seen_at - opened_at AS lasted FROM opsjobs.incidents")
    assert (found["class"], round(found["lasted"].total_seconds())) == ("postgres_away", 60)
    assert "could not be made an incident" not in caplog.text


def test_who_asked_before_postgres_came_back_tells_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two loops lose it at once; the second is still waiting for its answer when the first goes on."""
    outage, asked_at, error = new_outage(), time.monotonic(), ConnectionError()
    outage.begin("first", error, asked_at)
    outage.end("first")
    outage.begin("second", error, asked_at)
    assert caplog.text.count("Postgres is away") == 1
    outage.begin("second", error, time.monotonic())
    assert caplog.text.count("Postgres is away") == 2


def test_an_outage_that_comes_again_and_again_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A pooler that loses prepared statements takes a few passes
    of each new connection before the next error.
    """
    outage = new_outage(quiet_seconds=60)
    for number in range(5):
        lost = psycopg.errors.InvalidSqlStatementName(f'"_pg3_{number}" does not exist')
        met = psycopg.errors.DuplicatePreparedStatement(f'"_pg3_{number}" already exists')
        outage.begin("first", lost, time.monotonic())
        outage.begin("second", met, time.monotonic())
        outage.end("first")
        outage.end("second")
    assert caplog.text.count("Postgres is") == 2
    assert caplog.text.count("loses prepared statements") == 1
    other = psycopg.errors.AdminShutdown("terminating connection")
    outage.begin("first", other, time.monotonic())
    assert "Postgres is away (AdminShutdown: terminating connection)" in caplog.text


def test_an_outage_lasts_until_every_thread_has_postgres_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One loop keeps its connection while the others are refused: its passes must not end the outage."""
    outage, asked_at, error = new_outage(), time.monotonic(), ConnectionError()
    for _ in range(3):
        outage.begin("first", error, asked_at)
        outage.begin("second", error, asked_at)
        outage.end("first")
        outage.end("third")
    assert caplog.text.count("Postgres is away") == 1
    assert "Postgres is back" not in caplog.text
    outage.end("second")
    assert caplog.text.count("Postgres is back") == 1


def test_the_command_runs_what_is_due_and_stops_in_time(
    children: Children, database_url: str, redis_url: str
) -> None:
    app = host_module.create_app(
        SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url, OPSJOBS_DISPATCH=False
    )
    with app.app_context():
        ids = [host_module.add.options(delay=0.01).enqueue(a=1, b=n).id for n in range(3)]
        host_module.db.session.commit()
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    loops = children.flask("opsjobs", "run")
    loops.wait_for("runs the loops", 30)
    children.flask("opsjobs", "worker")
    url = psycopg.conninfo.make_conninfo(database_url.replace("+psycopg", ""))
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:

        def are_finished() -> bool:
            rows = connection.execute("SELECT state FROM opsjobs.jobs").fetchall()
            return rows == [("finished",)] * len(ids)

        def have_all_run() -> bool:
            names = {name for (name,) in connection.execute("SELECT loop FROM opsjobs.loop_runs")}
            return names == {loop.name for loop in LOOPS}

        wait_until(are_finished, 30)
        wait_until(have_all_run, 30)
    assert loops.terminate(10) == 0
    assert "Traceback" not in loops.log


def test_two_processes_of_the_command_live_side_by_side(
    children: Children, database_url: str
) -> None:
    both = [children.flask("opsjobs", "run", OPSJOBS_HEARTBEAT_SECONDS=0.2) for _ in range(2)]
    for each in both:
        each.wait_for("runs the loops", 30)
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:

        def both_passed() -> bool:
            rows = connection.execute(
                "SELECT count(DISTINCT process) FROM opsjobs.loop_runs"
                " WHERE loop = 'watch' AND passes > 3"
            ).fetchone()
            return rows == (2,)

        wait_until(both_passed, 20)
        assert connection.execute("SELECT count(error) FROM opsjobs.loop_runs").fetchone() == (0,)
    assert [each.terminate(10) for each in both] == [0, 0]
    assert not any(re.search("ERROR|Traceback", each.log) for each in both)


@contextmanager
def running(host: Host, number: int = 1, outage: Outage | None = None) -> Iterator[list[Counting]]:
    """So many loops, which have made some passes. They end with the block."""
    stop, outage = threading.Event(), outage or new_outage()
    loops = [Counting() for _ in range(number)]
    runners = [
        Runner(Loop(f"counting-{at}", every(0.01), each.loop.run, True), host)
        for at, each in enumerate(loops)
    ]
    threads = [LoopThread(runner, stop, outage, nullcontext) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(each.passes > 2 for each in loops))
        yield loops
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def wait_for_passes(loops: list[Counting], timeout: float = 30) -> None:
    """Wait until each of them has made some passes more."""
    seen = [each.passes for each in loops]
    wait_until(
        lambda: all(each.passes > old + 2 for each, old in zip(loops, seen, strict=True)), timeout
    )


def new_outage(quiet_seconds: float = 0) -> Outage:
    return Outage(logging.getLogger("flask_opsjobs.loops"), "the loops wait for it", quiet_seconds)


def test_the_jobs_of_a_killed_worker_are_rescued_by_the_loops(
    children: Children, database_url: str, redis_url: str, tmp_path: Any
) -> None:
    haste: dict[str, Any] = {
        "OPSJOBS_HEARTBEAT_SECONDS": 0.2,
        "OPSJOBS_LATE_SECONDS": 1,
        "OPSJOBS_MISSING_SECONDS": 2,
    }
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    gate = tmp_path / "gate"
    worker = children.flask("opsjobs", "worker", **haste)
    worker.wait_for("listens to", 30)
    with app.app_context():
        job_id = host_module.hold.enqueue(gate=str(gate)).id
        host_module.db.session.commit()
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()
    with psycopg.connect(
        database_url.replace("+psycopg", ""), autocommit=True, prepare_threshold=None
    ) as connection:

        def is_now(state: str, attempt: int) -> bool:
            statement = "SELECT state, attempt FROM opsjobs.jobs WHERE id = %s"
            return connection.execute(statement, [job_id]).fetchone() == (state, attempt)

        # A job that runs for a moment only is not written as started: its worker takes no attempt with it.
        wait_until(lambda: is_now("started", 1), 20)
        worker.kill()
        gate.touch()
        loops = children.flask("opsjobs", "run", **haste)
        loops.wait_for("is missing", 30)
        children.flask("opsjobs", "worker", **haste)
        wait_until(lambda: is_now("finished", 2), 30)
        cause = connection.execute(
            "SELECT cause_of_death FROM opsjobs.attempts WHERE outcome = 'lost'"
        ).fetchone()
    assert cause is not None
    assert cause[0] == "worker vanished: its process is gone"
