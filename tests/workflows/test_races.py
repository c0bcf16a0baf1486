"""Ends, operators, signals and maps of one run at the same moment, on connections of their own.

Whoever is first wins. No release is lost, none is made twice, and nobody waits for ever.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Unique, endings
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.endings.advance import advance, list_runs_to_advance
from flask_opsjobs.endings.pending_runs import PendingRuns
from flask_opsjobs.engine import inline_worker
from flask_opsjobs.host import Host
from flask_opsjobs.jobs import transitions as job_transitions
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.perform.perform import Report, perform
from flask_opsjobs.jobs.record import enqueue_many
from flask_opsjobs.loops import advance as advance_loop
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows import expand_map, transitions
from flask_opsjobs.workflows.send_signal import Signal, store_signal
from tests.support.engine import Bench, race, take
from tests.support.graphs import Graph, begin, settle_all
from tests.support.waiting import wait_until

MOST_BYTES = 1_000_000
TIMES = 40
PAYMENT = ("payment", "order-1")
WAITING = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
MANY_RUNS = """
    WITH run AS (
        INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at)
        SELECT 'many', 'running', '{}', '', 3, clock_timestamp() FROM generate_series(1, %s) RETURNING id
    ), job AS (
        INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
            workflow_id)
        SELECT 'call', 'default', 'default', state, '{}', 1, clock_timestamp(), clock_timestamp(), id
        FROM run CROSS JOIN (VALUES ('available'), ('available'), ('deferred')) AS first (state)
        RETURNING id, workflow_id, state
    ), named AS (
        SELECT *, row_number() OVER (PARTITION BY workflow_id ORDER BY state, id) AS no FROM job
    ), step AS (
        INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, released_at)
        SELECT id, workflow_id, (ARRAY['a', 'b', 'c'])[no], no, 'job', CASE no WHEN 3 THEN 2 ELSE 0 END,
            CASE WHEN no < 3 THEN clock_timestamp() END FROM named
    ), edge AS (
        INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
        SELECT p.id, c.id, 'cancel' FROM named p JOIN named c USING (workflow_id) WHERE p.no < 3 AND c.no = 3
    )
    SELECT workflow_id, array_agg(id ORDER BY no) FROM named GROUP BY workflow_id ORDER BY workflow_id
"""
COUNT_RELEASES = """
    CREATE TABLE releases (job_id bigint NOT NULL);
    CREATE FUNCTION note_release() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO releases VALUES (new.id); RETURN new; END $$;
    CREATE TRIGGER note_release AFTER UPDATE ON opsjobs.jobs FOR EACH ROW
        WHEN (old.state = 'deferred' AND new.state = 'available') EXECUTE FUNCTION note_release();
"""


@pytest.fixture
def connect(host: Host) -> Iterator[Callable[[], Connection]]:
    """Makes connections, each as of a process of its own."""
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(connect_apart(host.engine))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


# --- what processes do


def end(
    connection: Connection, job: int, kind: Any = "returned", dispatch_no: int = 1
) -> list[Any]:
    """Record the outcome of an attempt, as a worker does; returns the jobs that moved."""
    ending = EndedAttempt(job, dispatch_no, None, "worker", Outcome(kind=kind))
    return endings.write_outcomes(connection, [ending], read_clock(connection))


def end_and_advance(
    connection: Connection, run: int, job: int, kind: Any = "returned"
) -> list[Any]:
    """What a worker does with an outcome: it records it, and advances the run after the commit."""
    ended = end(connection, job, kind)
    advance(connection, run, MOST_BYTES)
    return ended


def decide(connection: Connection, run: int, change: Callable[[], Any]) -> Any:
    """What an operator's action does: under the run's lock; then the run is advanced."""
    with connection.transaction():
        transitions.lock(connection, [run])
        done = change()
    advance(connection, run, MOST_BYTES)
    return done


def cancel(connection: Connection, run: int) -> Any:
    """Cancel a run, as an operator."""

    def change() -> None:
        now = read_clock(connection)
        transitions.cancel(connection, [run], "anna", "because it is a test", now)

    return decide(connection, run, change)


def skip(connection: Connection, run: int, name: str) -> Any:
    """Skip a step, as an operator, when its state allows it; returns whether it did."""

    def change() -> bool:
        now = read_clock(connection)
        ((step),) = transitions.look_at_steps(connection, run, name)
        if step.state not in ("deferred", "failed", "canceled"):
            return False
        job_transitions.lock(connection, [step.id])
        transitions.reopen(connection, run, [step.id], now)
        endings.skip(connection, [step.id], now, "42", "known to be well")
        return True

    return decide(connection, run, change)


def retry(connection: Connection, run: int) -> Any:
    """Retry the steps of a run that did not finish, as an operator; returns their number."""

    def change() -> int:
        (found,) = transitions.look(connection, [run])
        now = read_clock(connection)
        steps = transitions.look_at_steps(connection, run, None)
        if not steps or found.state == "canceling":
            return 0
        ids = [step.id for step in steps]
        job_transitions.lock(connection, ids)
        transitions.reopen(connection, run, ids, now)
        released = [step.id for step in steps if step.is_released]
        job_transitions.retry(connection, released, now)
        return len(steps)

    return decide(connection, run, change)


def send(connection: Connection, host: Host, signal: Signal) -> int:
    """Store a signal in a transaction of its own, and give it to a wait after the commit."""
    with connection.transaction():
        stored = store_signal(partial(transitions.run_sql, connection), host, signal)
    give(connection, stored.id)
    return stored.id


def give(connection: Connection, signal: int) -> None:
    """What happens after the commit of a signal."""
    pending = PendingRuns(MOST_BYTES)
    pending.add(transitions.find_runs_of_signal(connection, signal, timedelta(days=7)))
    pending.advance(connection)


def outcomes(bench: Bench) -> list[str]:
    """What came of each signal, the oldest first."""
    return [row["outcome"] for row in bench.rows("SELECT outcome FROM opsjobs.signals ORDER BY id")]


# --- ends


@pytest.mark.slow
@pytest.mark.parametrize("number", [300, pytest.param(1_000, marks=pytest.mark.variants)])
def test_the_last_two_parents_of_a_step_end_together_many_times(
    bench: Bench, connect: Callable[[], Connection], pool: ThreadPoolExecutor, number: int
) -> None:
    """Case 1: neither sees the other, and the step is released once."""
    bench.connection.execute(COUNT_RELEASES)
    runs = bench.connection.execute(MANY_RUNS, [number]).fetchall()
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'started', dispatch_no = 1, attempt = 1,"
        " started_at = clock_timestamp() WHERE state = 'available'"
    )
    together = threading.Barrier(2)

    def work(connection: Connection, place: int) -> None:
        pending = PendingRuns(MOST_BYTES)
        for _, ids in runs:
            together.wait(30)
            pending.note(end(connection, ids[place]))
            pending.advance(connection)

    for worker in [pool.submit(work, connect(), place) for place in (0, 1)]:
        worker.result(120)
    by_workers = len(bench.rows("SELECT job_id FROM releases"))
    settle_all(bench.connection)
    releases = [row["job_id"] for row in bench.rows("SELECT job_id FROM releases")]
    assert sorted(releases) == sorted(ids[2] for _, ids in runs), "each once"
    assert by_workers > number / 2, "the loop does what is left, not all"


def test_an_end_waits_for_nobody_who_holds_its_run(
    bench: Bench, connect: Callable[[], Connection]
) -> None:
    """Case 5: only `advance` locks a run. Two processes end steps of it while a third one holds it."""
    graph = Graph.make(bench.connection, "a b c", ["a c", "b c"])
    jobs = [begin(graph, name) for name in "ab"]
    holder, first, second = connect(), connect(), connect()
    for connection in (first, second):
        connection.execute("SET lock_timeout = '100ms'")
    with holder.transaction(), first.transaction():
        assert transitions.lock(holder, [graph.run]) == [graph.run]
        assert end(first, jobs[0])
        assert end(second, jobs[1])
    settle_all(bench.connection)
    assert graph.states() == {"a": "finished", "b": "finished", "c": "available"}


def test_an_end_and_its_event_are_one_commit_and_the_loop_passes_on_what_nobody_did(
    bench: Bench, host: Host, connect: Callable[[], Connection]
) -> None:
    """Case 3: no count is kept apart from the end, where it could be lost."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    job = begin(graph, "a")
    dying = connect()
    with dying.transaction(force_rollback=True):
        assert end(dying, job)
    assert graph.states()["a"] == "started"
    assert bench.rows("SELECT * FROM opsjobs.workflow_end_events") == []
    assert end(dying, job)
    dying.close()  # its process dies before it advances the run
    assert bench.rows("SELECT job_ids FROM opsjobs.workflow_end_events") == [{"job_ids": [job]}]
    Runner(advance_loop.LOOP, host).run_once(bench.connection)
    assert graph.states() == {"a": "finished", "b": "available"}


def test_two_that_advance_one_run_release_each_step_once(
    bench: Bench, connect: Callable[[], Connection]
) -> None:
    first, second = connect(), connect()
    names = [f"s{number}" for number in range(20)]
    for _ in range(TIMES):
        edges = [f"{a} {b}" for a in names[:10] for b in names[10:]]
        graph = Graph.make(bench.connection, " ".join(names), edges)
        for name in names[:10]:
            graph.end(name)
        done = race(*(partial(advance, one, graph.run, MOST_BYTES) for one in (first, second)))
        assert [one for one in done if isinstance(one, Exception)] == []
        assert [one.is_idle for one in done if one is not None].count(False) == 1
        settle_all(bench.connection)
        assert [*graph.states().values()] == ["finished"] * 10 + ["available"] * 10


def test_of_two_steps_the_one_whose_time_is_first_is_the_culprit(
    bench: Bench, connect: Callable[[], Connection]
) -> None:
    """Also when the other one commits first: an operator sees the times, and nobody sees the commits."""
    graph = Graph.make(bench.connection, "a b", [])
    first, second = connect(), connect()
    with first.transaction():
        graph.end("b", "failed", first)
        graph.end("a", "failed", second)
    settle_all(bench.connection)
    assert graph.row()["ended_by_step"] == "b"


def test_of_steps_that_ended_at_once_the_first_of_the_graph_is_the_culprit(bench: Bench) -> None:
    """A worker writes several outcomes in one statement. A member of a map is never before its map."""
    graph = Graph.make(bench.connection, "a b member", [])
    bench.connection.execute("UPDATE opsjobs.steps SET position = 0 WHERE name = 'member'")
    attempts = [
        EndedAttempt(begin(graph, name), 1, None, "worker", Outcome(kind="raised"))
        for name in ("member", "b")
    ]
    endings.write_outcomes(bench.connection, attempts, read_clock(bench.connection))
    graph.end("a")
    settle_all(bench.connection)
    assert graph.row()["ended_by_step"] == "b"


@pytest.mark.parametrize("kind", ["returned", "raised"])
def test_cancel_against_an_end(kind: str, bench: Bench, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    for _ in range(TIMES):
        graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
        job = begin(graph, "a")
        _, ended = race(
            lambda graph=graph: cancel(first, graph.run),
            lambda graph=graph, job=job: end_and_advance(second, graph.run, job, kind),
        )
        settle_all(bench.connection)
        states, row = graph.states(), graph.row()
        assert [moved.state for moved in ended] == [states["a"]]
        if row["state"] == "running":
            # It ended, and released the next step, before the cancel began to look.
            raise AssertionError("the run was canceled, and runs")
        assert set(states.values()) <= {"finished", "failed", "canceled"}
        stopped = [name for name in "abc" if bench.job(graph.ids[name])["ended_by"] == "canceled"]
        assert row["state"] == ("canceled" if stopped else "failed")
        assert row["end_no"] == 1


@pytest.mark.parametrize("kind", ["canceled", "raised"])
def test_a_step_that_a_cancel_stopped_counts_whatever_the_clock_of_its_end_says(
    kind: Any, bench: Bench
) -> None:
    """A recorder reads the clock, the run is canceled, and the recorder writes the end of its only step."""
    graph = Graph.make(bench.connection, "a", [])
    ending = EndedAttempt(begin(graph, "a"), 1, None, "worker", Outcome(kind=kind))
    now = read_clock(bench.connection)
    cancel(bench.connection, graph.run)
    endings.write_outcomes(bench.connection, [ending], now)
    settle_all(bench.connection)
    job, row = bench.job(ending.id), graph.row()
    assert job["ended_at"] < row["cancel_requested_at"]
    assert (row["state"], row["ended_by"]) == ("canceled", "canceled")


def test_a_skip_against_a_release(bench: Bench, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    seen = set()
    for _ in range(TIMES):
        graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
        job = begin(graph, "a")
        skipped, _ = race(
            lambda graph=graph: skip(first, graph.run, "b"),
            lambda graph=graph, job=job: end_and_advance(second, graph.run, job),
        )
        settle_all(bench.connection)
        expected = ("finished", "available") if skipped else ("available", "deferred")
        assert (graph.states()["b"], graph.states()["c"]) == expected
        seen.add(skipped)
    assert seen <= {True, False}


def test_a_retry_against_advancing(bench: Bench, connect: Callable[[], Connection]) -> None:
    """Case 15: the end event is read after the retry, or before it. The step runs again in both cases."""
    first, second = connect(), connect()
    for _ in range(TIMES):
        graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
        end(bench.connection, begin(graph, "a"), "raised")
        retried, advanced = race(
            lambda graph=graph: retry(first, graph.run),
            lambda graph=graph: advance(second, graph.run, MOST_BYTES),
        )
        assert retried == 1
        assert not isinstance(advanced, Exception)
        settle_all(bench.connection)
        assert graph.states() == {"a": "available", "b": "deferred", "c": "deferred"}
        assert graph.row()["state"] == "running"


def test_a_step_that_is_ended_while_it_is_released_is_not_released(
    bench: Bench, connect: Callable[[], Connection], pool: ThreadPoolExecutor
) -> None:
    """Else a retry would make it run without the results that it takes."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    first, second = connect(), connect()
    with first.transaction():
        endings.cancel(first, [graph.ids["b"]], read_clock(first), "no need")
        advanced = pool.submit(advance, second, graph.run, MOST_BYTES)
        wait_until(lambda: bench.rows(WAITING), what="the release to wait for the job")
    done = advanced.result(10)
    assert done is not None
    assert done.lanes == ()
    row = bench.row("SELECT released_at FROM opsjobs.steps WHERE job_id = %s", graph.ids["b"])
    assert row["released_at"] is None
    settle_all(bench.connection)
    assert graph.row()["state"] == "failed"


def test_a_job_that_is_locked_for_long_makes_no_heartbeat_late(
    bench: Bench, connect: Callable[[], Connection]
) -> None:
    """A recorder waits 0.1 s for it, tries again later, and says after 2 s that the run has trouble."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    holder, worker = connect(), connect()
    # Postgres names the time-out that is over first, also when both are seen late.
    worker.execute("SET statement_timeout = '1s'")
    pending = PendingRuns(MOST_BYTES)
    pending.add([graph.run])
    tries = 0
    with holder.transaction():
        holder.execute("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", [graph.ids["b"]])
        while pending:
            wait_until(lambda: pending.due_in() == 0, what="the next try")
            assert pending.advance(worker) == []
            tries += 1
            assert (graph.row()["trouble"] is None) == bool(pending)
    assert "LockNotAvailable" in graph.row()["trouble"]
    assert 2 <= tries <= 4
    settle_all(bench.connection)
    assert graph.row()["trouble"] is None
    assert graph.states()["b"] == "available"


def test_a_skipped_step_releases_its_unique_lock(
    bench: Bench, db: SQLAlchemy, opsjobs: OpsJobs
) -> None:
    """It is taken at the start. The same call can be enqueued again."""

    @opsjobs.task(record_output=True)
    def fetch() -> None: ...

    @opsjobs.task(unique=Unique(until="ended"))
    def sync(account: int) -> None: ...

    flow = opsjobs.workflow("unique")
    flow.step("sync", sync, account=7, after=flow.step("fetch", fetch))
    run = flow.start()
    db.session.commit()
    assert sync.enqueue(account=7).conflict
    assert skip(bench.connection, run.id, "sync")
    settle_all(bench.connection)
    assert not sync.enqueue(account=7).conflict
    db.session.rollback()


# --- signals


def test_a_signal_against_a_wait_that_opens(
    bench: Bench, host: Host, connect: Callable[[], Connection]
) -> None:
    """Case 20."""
    first, second = connect(), connect()
    for number in range(TIMES):
        key = f"order-{number}"
        waits = {"paid": ("payment", key)}
        graph = Graph.make(bench.connection, "a paid", ["a paid"], waits=waits)
        graph.end("a")
        done = race(
            lambda key=key: send(first, host, Signal("payment", key)),
            lambda graph=graph: advance(second, graph.run, MOST_BYTES),
        )
        assert [one for one in done if isinstance(one, Exception)] == []
        settle_all(bench.connection)
        assert graph.states()["paid"] == "finished"
        assert graph.row()["state"] == "finished"
    assert outcomes(bench) == ["taken"] * TIMES


@pytest.mark.parametrize("is_signal_first", [True, False])
def test_a_signal_and_a_wait_that_do_not_see_each_other(
    is_signal_first: bool, bench: Bench, host: Host, connect: Callable[[], Connection]
) -> None:
    """Each commits after the other has looked; the loop finds them."""
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    first, second = connect(), connect()
    if is_signal_first:
        with first.transaction():
            stored = store_signal(partial(transitions.run_sql, first), host, Signal(*PAYMENT))
            advance(second, graph.run, MOST_BYTES)
        assert outcomes(bench) == ["early"]
        give(first, stored.id)
    else:
        with second.transaction():
            advance(second, graph.run, MOST_BYTES)
            send(first, host, Signal(*PAYMENT))
            assert outcomes(bench) == ["early"]
    settle_all(bench.connection)
    assert outcomes(bench) == ["taken"]
    assert graph.row()["state"] == "finished"


def test_one_signal_is_not_taken_by_two_waits_that_open_together(
    bench: Bench, host: Host, connect: Callable[[], Connection]
) -> None:
    """Case 24."""
    first, second = connect(), connect()
    for number in range(TIMES):
        waits = {"paid": ("payment", f"order-{number}")}
        graphs = [Graph.make(bench.connection, "paid", [], waits=waits) for _ in range(2)]
        send(bench.connection, host, Signal("payment", f"order-{number}"))
        race(
            *(
                partial(advance, one, graph.run, MOST_BYTES)
                for one, graph in zip((first, second), graphs, strict=True)
            )
        )
        settle_all(bench.connection)
        states = [graph.states()["paid"] for graph in graphs]
        assert sorted(states) == ["deferred", "finished"]
    assert outcomes(bench) == ["taken"] * TIMES


def test_a_wait_that_has_timed_out_makes_no_signal_ambiguous(bench: Bench, host: Host) -> None:
    """Its end was not passed on yet, but it is not open."""
    old = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    new = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    settle_all(bench.connection)
    old.end("paid", "failed")
    signal = store_signal(partial(transitions.run_sql, bench.connection), host, Signal(*PAYMENT))
    advance(bench.connection, new.run, MOST_BYTES)
    assert outcomes(bench) == ["taken"]
    settle_all(bench.connection)
    assert (old.row()["state"], new.row()["state"]) == ("failed", "finished")
    taken = bench.row("SELECT taken_by FROM opsjobs.signals WHERE id = %s", signal.id)
    assert taken["taken_by"] == new.ids["paid"]


def test_a_wait_that_is_retried_opens_again(bench: Bench, host: Host) -> None:
    """No worker gets it, and its time runs anew."""
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    bench.connection.execute("UPDATE opsjobs.steps SET timeout_seconds = 3600")
    settle_all(bench.connection)
    later = read_clock(bench.connection) + timedelta(hours=2)
    assert len(endings.expire(bench.connection, later)) == 1
    settle_all(bench.connection)
    assert graph.row()["state"] == "failed"
    assert retry(bench.connection, graph.run) == 1
    settle_all(bench.connection)
    assert graph.states()["paid"] == "deferred"
    assert endings.expire(bench.connection, read_clock(bench.connection)) == []
    send(bench.connection, host, Signal(*PAYMENT))
    settle_all(bench.connection)
    assert graph.row()["state"] == "finished"


# --- maps


@pytest.fixture
def mapped(db: SQLAlchemy, opsjobs: OpsJobs) -> Callable[[], int]:
    """Starts a run with a map whose list is known, and what waits for it; returns the run's id."""

    @opsjobs.task(record_output=True, max_attempts=1)
    def numbers() -> list[int]:
        return [3, 1, 2]

    @opsjobs.task(record_output=True, max_attempts=1)
    def double(number: int) -> int:
        return 2 * number

    @opsjobs.task(record_output=True, max_attempts=1)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    def start() -> int:
        flow = opsjobs.workflow("mapped")
        first = flow.step("numbers", numbers)
        flow.step(
            "total",
            total,
            numbers=flow.map("double", double, over=first.result, as_="number").results,
        )
        run = flow.start()
        db.session.commit()
        perform_due(limit=1)
        settle_all_of(db)
        return run.id

    return start


def settle_all_of(db: SQLAlchemy) -> None:
    with closing(connect_apart(db.engine)) as connection:
        settle_all(connection)


def test_a_map_against_cancel(
    bench: Bench, app: Flask, mapped: Callable[[], int], connect: Callable[[], Connection]
) -> None:
    first = connect()
    seen = set()
    for _ in range(8):
        run = mapped()

        def expand() -> None:
            with app.app_context():
                perform_due(limit=1)

        done = race(expand, lambda run=run: cancel(first, run))
        assert [one for one in done if isinstance(one, Exception)] == []
        settle_all(bench.connection)
        row = bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)
        assert row["state"] == "canceled"
        assert row["steps"] in (3, 6)
        seen.add(row["steps"])
    assert seen


def test_a_run_that_is_canceled_since_a_test_read_the_clock_ends_as_canceled(
    bench: Bench,
    mapped: Callable[[], int],
    connect: Callable[[], Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`perform_due` reads the clock, an operator cancels, and only then it looks for runs to advance."""
    run = mapped()
    canceling = connect()

    def cancel_first(connection: Connection) -> list[int]:
        with canceling.transaction():
            transitions.lock(canceling, [run])
            transitions.cancel(canceling, [run], "anna", "test", read_clock(canceling))
        return list_runs_to_advance(connection)

    monkeypatch.setattr(inline_worker, "list_runs_to_advance", cancel_first)
    perform_due(limit=1)
    settle_all(bench.connection)
    row = bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)
    assert row["state"] == "canceled"


def test_a_map_that_is_expanded_twice_at_once_adds_its_members_once(
    bench: Bench,
    app: Flask,
    mapped: Callable[[], int],
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first attempt is given up while it holds the run's lock, and the second one waits for that."""
    run = mapped()
    bench.connection.execute("UPDATE opsjobs.jobs SET max_attempts = 2 WHERE task = 'opsjobs.map'")
    is_locked, go_on = threading.Event(), threading.Event()
    copy_lines = enqueue_many.copy_lines

    def hold(*args: Any) -> None:
        monkeypatch.setattr(expand_map, "copy_lines", copy_lines)
        is_locked.set()
        assert go_on.wait(20)
        copy_lines(*args)

    monkeypatch.setattr(expand_map, "copy_lines", hold)

    def expand() -> None:
        with app.app_context():
            perform_due(limit=1)

    first = pool.submit(expand)
    assert is_locked.wait(10)
    rescue_all(bench)
    second = pool.submit(expand)
    wait_until(lambda: bench.rows(WAITING), what="the second attempt to wait for the run")
    go_on.set()
    first.result(20)
    second.result(20)
    with app.app_context():
        perform_due()
    settle_all(bench.connection)
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = 'opsjobs.map'")
    assert (job["state"], job["attempt"]) == ("finished", 2)
    row = bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)
    assert (row["state"], row["steps"]) == ("finished", 6)
    total = bench.row(
        "SELECT value FROM opsjobs.outputs JOIN opsjobs.steps USING (job_id) WHERE name = 'total'"
    )
    assert total["value"] == 12


def test_a_map_is_expanded_before_its_start_is_written(
    bench: Bench, app: Flask, host: Host, mapped: Callable[[], int]
) -> None:
    """A worker takes it, and writes its start only when it has been running for 50 ms."""
    run = mapped()
    (key,) = take(bench)

    def steps() -> Any:
        return bench.row("SELECT steps FROM opsjobs.workflows WHERE id = %s", run)["steps"]

    def expand(dispatch_no: int) -> Outcome:
        row = bench.job(key[0])
        given = {
            "args": json.dumps(row["args"]),
            "dispatch_no": dispatch_no,
            "attempt": 1,
            "claimed_at": row["dispatched_at"],
        }
        with app.app_context():
            claimed = Claimed(**{**{name: row.get(name) for name in Claimed._fields}, **given})
            return perform(host.performable, claimed, Report(None, 1000, None, host.spare.one))

    endings.give_back(bench.connection, [key], bench.worker_id, read_clock(bench.connection))
    assert take(bench) == [(key[0], 2)]
    # Somebody who has the delivery no more adds nothing.
    assert expand(1).kind == "returned"
    assert steps() == 3
    assert expand(2).output == "3"
    assert steps() == 6


def rescue_all(bench: Bench) -> None:
    """Give up the attempts that run, as the watch loop does for workers that are gone."""
    started = bench.rows("SELECT worker_id FROM opsjobs.jobs WHERE state = 'started'")
    workers = [row["worker_id"] for row in started]
    assert endings.rescue(bench.connection, workers, read_clock(bench.connection), "it is gone")


# --- a host's open transaction


def test_a_run_in_an_open_transaction_is_nobody_elses(
    bench: Bench, host: Host, db: SQLAlchemy, opsjobs: OpsJobs, connect: Callable[[], Connection]
) -> None:
    """Others neither see the run nor wait for it. After the commit it goes on."""

    @opsjobs.task(record_output=True)
    def pay() -> None: ...

    other = connect()
    other.execute("SET lock_timeout = '1s'")
    flow = opsjobs.workflow("open")
    flow.step("pay", pay, after=[flow.wait("paid", signal=PAYMENT[0], key=PAYMENT[1])])
    run = flow.start()
    send(other, host, Signal(*PAYMENT))
    settle_all(other)
    assert advance(other, run.id, MOST_BYTES) is None
    assert outcomes(bench) == ["early"]
    db.session.commit()
    settle_all(other)
    assert outcomes(bench) == ["taken"]
    perform_due()
    settle_all(bench.connection)
    row = bench.row("SELECT state FROM opsjobs.workflows WHERE id = %s", run.id)
    assert row["state"] == "finished"


def test_a_callback_takes_no_unique_lock(
    bench: Bench, db: SQLAlchemy, opsjobs: OpsJobs, connect: Callable[[], Connection]
) -> None:
    """Case 29: the end of a run does not wait for a host that holds the lock of the same call."""

    @opsjobs.task(unique=Unique(until="ended"))
    def report(workflow_id: int) -> None: ...

    flow = opsjobs.workflow("told", on_end=report)
    flow.step("only", opsjobs.task(_nothing))
    run = flow.start()
    db.session.commit()
    (job,) = bench.rows("SELECT id FROM opsjobs.jobs")
    started = begin(Graph(bench.connection, run.id, {"only": job["id"]}), "only")
    assert not report.enqueue(run.id).conflict  # and the host's transaction stays open
    other = connect()
    other.execute("SET lock_timeout = '1s'")
    assert end(other, started)
    settle_all(other)
    told = "SELECT args, state FROM opsjobs.jobs WHERE task = %s"
    assert bench.rows(told, report.name) == [
        {"args": {"workflow_id": run.id}, "state": "available"}
    ]


def _nothing() -> None: ...


def test_end_events_of_a_run_that_is_gone_are_forgotten(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a", [])
    graph.end("a")
    bench.connection.execute("DELETE FROM opsjobs.workflows")
    assert advance(bench.connection, graph.run, MOST_BYTES) is None
    assert bench.rows("SELECT * FROM opsjobs.workflow_end_events") == []
