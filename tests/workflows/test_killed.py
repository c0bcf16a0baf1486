"""Processes that are killed between any two statements of ending a step, advancing a run or expanding a map,
and a Postgres that is killed after a run was advanced.

The first process is killed before its first statement, the next one before its second, and so on, until one
comes to its end.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import endings
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops.advance import LOOP
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows import transitions
from tests.conftest import MakeApp
from tests.support import host as host_module
from tests.support.database import MigratedPostgres
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench
from tests.support.graphs import CALLBACK, Graph, begin, settle_all
from tests.support.processes import Children

ADVANCE = """
import sys
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.endings.advance import advance
from tests.support.dying import die_before
from tests.support.host import create_app, db
run, number = map(int, sys.argv[1:])
with create_app().app_context():
    connection = connect_apart(db.engine)
die_before(number)
while advance(connection, run, 1_000_000).has_more:
    pass
"""
# What the recorder of a worker does with an outcome.
END = """
import sys
from flask_opsjobs.endings.pending_runs import PendingRuns
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.dying import die_before
from tests.support.engine import Bench
from tests.support.host import create_app
job, number = map(int, sys.argv[1:])
app = create_app()
with app.app_context():
    bench, runs = Bench(app.extensions["opsjobs"], f"killed-{number}"), PendingRuns(1_000_000)
    bench.claim(job)
    die_before(number)
    runs.note(bench.record(job, 1, Outcome(kind="returned")))
    runs.advance(bench.connection)
"""
EXPAND = """
import json
import sys
from flask_opsjobs.jobs.perform.current import Running
from tests.support.dying import die_before
from tests.support.engine import Bench
from tests.support.host import create_app
job, dispatch_no, number = map(int, sys.argv[1:])
app = create_app(OPSJOBS_DISPATCH=False)
with app.app_context():
    host = app.extensions["opsjobs"]
    claimed = Bench(host, f"killed-{number}").claim(job, dispatch_no)
    die_before(number)
    with Running(claimed, lambda *_: None):
        host.performable[claimed.task].function(**json.loads(claimed.args))
"""
SIGNAL = """
    INSERT INTO opsjobs.signals (name, key, payload, at, by, outcome)
    VALUES ('payment', %s, '7', clock_timestamp(), 'test', 'early')
"""
OUTPUT = """
    INSERT INTO opsjobs.outputs (job_id, value, size_bytes, created_at)
    VALUES (%s, '{"id": 7}', 9, clock_timestamp())
"""


def release_with_results(connection: Connection, number: int) -> Graph:
    """Two parents ended; what waits for both takes a result of one."""
    graph = Graph.make(connection, "a b c d", ["a c", "b c", "c d"])
    takes = {"x": {"step": graph.ids["a"], "path": ["id"]}}
    connection.execute(
        "UPDATE opsjobs.steps SET takes = %s WHERE job_id = %s",
        [json.dumps(takes), graph.ids["c"]],
    )
    connection.execute(OUTPUT, [graph.ids["a"]])
    graph.end("a")
    graph.end("b")
    return graph


def cancel_behind_a_failure(connection: Connection, number: int) -> Graph:
    """A step failed, and the run ends with a callback."""
    graph = Graph.make(connection, "a b c", ["a b", "b c"], on_end=CALLBACK)
    graph.end("a", "failed")
    return graph


def take_an_early_signal(connection: Connection, number: int) -> Graph:
    """A wait opens, takes its signal, and what is behind it is released."""
    waits = {"paid": ("payment", f"order-{number}")}
    graph = Graph.make(connection, "a paid b", ["a paid", "paid b"], waits=waits)
    connection.execute(SIGNAL, [f"order-{number}"])
    graph.end("a")
    return graph


def stop_a_canceled_run(connection: Connection, number: int) -> Graph:
    """One step waits, and one runs."""
    graph = Graph.make(connection, "a b c", ["b c"])
    begin(graph, "a")
    now = read_clock(connection)
    transitions.cancel(connection, [graph.run], "anna", "because it is a test", now)
    return graph


def look(bench: Bench, graph: Graph) -> dict[str, Any]:
    """What must be the same, whoever brought the run to rest."""
    jobs = bench.rows(
        "SELECT s.name, j.state, j.ended_by, j.args, s.settled, s.pending, s.released_at IS NOT NULL,"
        " j.cancel_requested_by FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id"
        " WHERE s.workflow_id = %s ORDER BY s.position",
        graph.run,
    )
    callbacks = bench.rows("SELECT end_no FROM opsjobs.callbacks WHERE of_id = %s", graph.run)
    columns = (
        "state",
        "settled",
        "finished",
        "failed",
        "canceled",
        "end_no",
        "ended_by",
        "trouble",
    )
    return {
        "jobs": jobs,
        "callbacks": callbacks,
        "run": {column: graph.row()[column] for column in columns},
    }


MAKERS = [
    release_with_results,
    cancel_behind_a_failure,
    take_an_early_signal,
    stop_a_canceled_run,
]


@pytest.mark.slow
@pytest.mark.lane
@pytest.mark.parametrize("make", MAKERS)
def test_a_process_that_is_killed_while_it_advances(
    make: Callable[[Connection, int], Graph], bench: Bench, host: Host, children: Children
) -> None:
    """The loop finishes it within two passes, and all is as if nobody had been killed."""
    graph = make(bench.connection, 0)
    settle_all(bench.connection)
    expected = look(bench, graph)
    exit_code, number = -signal.SIGKILL, 0
    while exit_code == -signal.SIGKILL:
        number += 1
        graph = make(bench.connection, number)
        exit_code = children.python("-c", ADVANCE, str(graph.run), str(number)).wait(30)
        wait_until_rolled_back(bench.connection)
        runner = Runner(LOOP, host)
        for _ in range(2):
            runner.run_once(bench.connection)
        assert look(bench, graph) == expected, f"killed before statement {number}"
        assert bench.rows("SELECT * FROM opsjobs.workflow_end_events") == []
    assert exit_code == 0
    assert number > 5, "lock, settle, read, release, commit, and the end of the process"
    settle_all(bench.connection)


def test_a_process_that_is_killed_while_it_ends_a_step(
    bench: Bench, host: Host, children: Children
) -> None:
    """The end and its end event are there both, or none; then the next attempt ends the step."""
    exit_code, number = -signal.SIGKILL, 0
    ended = []
    while exit_code == -signal.SIGKILL:
        number += 1
        graph = Graph.make(bench.connection, "a b", ["a b"])
        job = graph.ids["a"]
        bench.connection.execute("UPDATE opsjobs.jobs SET max_attempts = 2 WHERE id = %s", [job])
        bench.dispatch(prefetch=1_000)
        exit_code = children.python("-c", END, str(job), str(number)).wait(30)
        wait_until_rolled_back(bench.connection)
        workers = [bench.job(job)["worker_id"]]
        endings.rescue(bench.connection, workers, read_clock(bench.connection), "it is gone")
        ended.append(graph.states()["a"] == "finished")
        bench.dispatch(prefetch=1_000)
        if not ended[-1]:
            bench.claim(job, 2)
            bench.record(job, 2, Outcome(kind="returned"))
        runner = Runner(LOOP, host)
        for _ in range(2):
            runner.run_once(bench.connection)
        assert graph.states()["a"] == "finished", number
        assert graph.states()["b"] in ("available", "queued"), number
        assert bench.rows("SELECT * FROM opsjobs.workflow_end_events") == []
    assert exit_code == 0
    assert number > 5
    assert (ended[0], ended[-1]) == (False, True)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """The host of child processes, without dispatch."""
    return make_app(opsjobs=host_module.opsjobs)


def start_mapped(app: Flask, bench: Bench) -> tuple[int, int]:
    """Start a run whose map is due; returns the run and the job of the map."""
    with app.app_context():
        flow = host_module.opsjobs.workflow("mapped")
        values = flow.step("values", host_module.give, value=[3, 1, 2])
        mapped = flow.map("each", host_module.give, over=values.result, as_="value")
        flow.step("all", host_module.give, value=mapped.results)
        session = app.extensions["sqlalchemy"].session
        run = flow.start(session=session)
        session.commit()
        perform_due(limit=1)
    settle_all(bench.connection)
    job = bench.row(
        "SELECT id FROM opsjobs.jobs WHERE workflow_id = %s AND task = 'opsjobs.map'", run.id
    )
    return run.id, job["id"]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_expands_a_map(
    app: Flask, bench: Bench, children: Children
) -> None:
    """After its rescue the map is expanded by the next attempt, unless that was committed."""
    exit_code, number = -signal.SIGKILL, 0
    steps = []
    while exit_code == -signal.SIGKILL:
        number += 1
        run, job = start_mapped(app, bench)
        assert bench.dispatch(prefetch=1_000) == 1
        words = [str(job), "1", str(number)]
        exit_code = children.python("-c", EXPAND, *words).wait(30)
        wait_until_rolled_back(bench.connection)
        steps.append(bench.row("SELECT steps FROM opsjobs.workflows WHERE id = %s", run)["steps"])
        assert bench.job(job)["state"] == "started"
        workers = [bench.job(job)["worker_id"]]
        endings.rescue(bench.connection, workers, read_clock(bench.connection), "it is gone")
        with app.app_context():
            perform_due()
        settle_all(bench.connection)
        row = bench.row("SELECT state, steps, end_no FROM opsjobs.workflows WHERE id = %s", run)
        assert row == {"state": "finished", "steps": 6, "end_no": 1}, f"killed before {number}"
        result = bench.row(
            "SELECT value FROM opsjobs.outputs JOIN opsjobs.steps USING (job_id)"
            " WHERE workflow_id = %s AND name = 'all'",
            run,
        )
        assert result["value"] == [3, 1, 2]
    assert exit_code == 0
    assert number > 5, "lock, settle, read, release, commit, and the end of the process"
    assert (steps[0], steps[-1]) == (3, 6)


# --- a Postgres that is killed


@pytest.fixture
def own_postgres() -> Iterator[MigratedPostgres]:
    """It writes the commits that nobody waits for as late as it can."""
    with MigratedPostgres(wal_writer_delay="10s") as server:
        yield server


def test_a_postgres_that_is_killed_right_after_runs_were_advanced(
    own_postgres: MigratedPostgres, own_database_url: str, make_app: MakeApp
) -> None:
    """`advance` does not wait for the disk. What is lost is done again, from what was committed before."""
    host = make_app(SQLALCHEMY_DATABASE_URI=own_database_url).extensions["opsjobs"]
    bench, expected = Bench(host), []
    for make in MAKERS:
        graph = make(bench.connection, 0)
        settle_all(bench.connection)
        expected.append(look(bench, graph))
    graphs = [make(bench.connection, 1) for make in MAKERS]

    def kill_postgres(bench: Bench) -> Bench:
        own_postgres.kill()
        bench.close()
        own_postgres.start()
        bench = Bench(host)
        for graph in graphs:
            graph.connection = bench.connection
        return bench

    times_lost = 0
    for _ in range(3):
        before = [look(bench, graph) for graph in graphs]
        for graph in graphs:
            assert advance(bench.connection, graph.run, 1_000_000) is not None
        bench = kill_postgres(bench)
        times_lost += [look(bench, graph) for graph in graphs] == before
    assert times_lost > 0, "else this test shows nothing"
    runner = Runner(LOOP, host)
    for _ in range(2):
        runner.run_once(bench.connection)
    assert [look(bench, graph) for graph in graphs] == expected
    settle_all(bench.connection)
    # A dispatch waits for the disk: no worker gets a step that waits again after a crash.
    graphs = [release_with_results(bench.connection, 2)]
    advance(bench.connection, graphs[0].run, 1_000_000)
    assert bench.dispatch(prefetch=1_000) > 0
    bench = kill_postgres(bench)
    assert graphs[0].states()["c"] == "queued"
    assert bench.rows("SELECT * FROM opsjobs.workflow_end_events") == []
    bench.close()
