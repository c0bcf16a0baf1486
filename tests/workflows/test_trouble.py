"""A run that cannot be advanced: ends, heartbeats and other runs go on, it says so, and it heals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from flask_opsjobs.endings import pending
from flask_opsjobs.engine.worker import recorder
from flask_opsjobs.host import Host
from flask_opsjobs.loops.advance import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all
from tests.support.recording import Record, note_turns, recording, turns_of
from tests.support.waiting import wait_until

ENDS, RUNS = 100, 20
FAN = """
    WITH run AS (
        INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at)
        VALUES ('fan', 'running', '{}', '', %(steps)s, clock_timestamp()) RETURNING id
    ), job AS (
        INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
            workflow_id, dispatch_no, attempt, started_at)
        SELECT 'call', 'default', 'default', CASE WHEN n > %(ends)s THEN 'deferred' ELSE 'started' END, '{}',
            1, clock_timestamp(), clock_timestamp(), id, (n <= %(ends)s)::int, (n <= %(ends)s)::int,
            CASE WHEN n <= %(ends)s THEN clock_timestamp() END
        FROM run CROSS JOIN generate_series(1, %(steps)s) AS n
        RETURNING id, workflow_id, state
    ), step AS (
        INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, released_at)
        SELECT id, workflow_id, id::text, id, 'job', CASE state WHEN 'deferred' THEN %(ends)s ELSE 0 END,
            CASE state WHEN 'started' THEN clock_timestamp() END FROM job
    ), edge AS (
        INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
        SELECT a.id, b.id, 'cancel' FROM job a JOIN job b ON a.state = 'started' AND b.state = 'deferred'
    )
    SELECT workflow_id, array_agg(id ORDER BY id) FILTER (WHERE state = 'started') FROM job
    GROUP BY workflow_id
"""
BREAK = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'broken on purpose'; END $$;
    CREATE TRIGGER refuse BEFORE UPDATE OF settled ON opsjobs.steps
        FOR EACH ROW WHEN ({}) EXECUTE FUNCTION refuse()
"""
MEND = "DROP TRIGGER refuse ON opsjobs.steps; DROP FUNCTION refuse"


def break_runs(bench: Bench, which: str) -> None:
    """From now on these runs cannot be advanced: `which` is a condition on the row of a step."""
    bench.connection.execute(BREAK.format(which))


def mend(bench: Bench) -> None:
    bench.connection.execute(MEND)


def trouble(bench: Bench, run: int) -> str | None:
    row = bench.row("SELECT trouble FROM opsjobs.workflows WHERE id = %s", run)
    found: str | None = row["trouble"]
    return found


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


@pytest.fixture
def record(bench: Bench) -> Iterator[Record]:
    """Ends jobs through a real recorder, in whose every turn a heartbeat is due."""
    with recording(bench, 0) as record:
        yield record


def make_fan(bench: Bench, ends: int = ENDS, behind: int = 1) -> tuple[int, list[int]]:
    """A run of started steps, and others behind them all; returns its id and the jobs that run."""
    found = bench.connection.execute(FAN, {"ends": ends, "steps": ends + behind}).fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "states"), [("returned", {"available", "queued"}), ("raised", {"canceled"})]
)
def test_a_heartbeat_comes_between_any_two_turns_of_a_large_run(
    bench: Bench, record: Record, kind: str, states: set[str]
) -> None:
    """And no turn moves more than 1,000 steps, so a heartbeat is late by one turn at most."""
    note_turns(bench)
    _, jobs = make_fan(bench, 1, 2_500)
    record(jobs, kind)
    left = "SELECT 1 FROM opsjobs.jobs WHERE state = 'deferred' LIMIT 1"
    wait_until(lambda: not bench.rows(left), 60)
    events = "SELECT 1 FROM opsjobs.workflow_end_events LIMIT 1"
    wait_until(lambda: not bench.rows(events), 60, what="the recorder to make its last turn")
    turns = turns_of(bench)
    sizes = [size for kind, size in turns if kind == "moved"]
    assert (sum(sizes), max(sizes)) == (2_500, 1_000)
    kinds = [kind for kind, _ in turns]
    assert ("moved", "moved") not in pairwise(kinds)
    settle_all(bench.connection)
    rows = bench.rows("SELECT state FROM opsjobs.jobs WHERE NOT id = ANY (%s)", jobs)
    assert {row["state"] for row in rows} <= states


def test_runs_that_cannot_be_advanced_are_tried_once_with_a_heartbeat_between_any_two(
    bench: Bench,
    host: Host,
    record: Record,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many steps end. One line is logged of each, and once they are mended they heal."""
    monkeypatch.setattr(recorder, "TURN_SECONDS", 0)
    monkeypatch.setattr(pending, "_TROUBLE_SECONDS", 600)
    made = [make_fan(bench, ENDS // RUNS) for _ in range(RUNS)]
    runs = [run for run, _ in made]
    break_runs(bench, "true")
    note_turns(bench)
    for jobs in zip(*(jobs for _, jobs in made), strict=True):
        record(jobs)
        wait_until(lambda: all(trouble(bench, run) for run in runs), what="all to say trouble")
    kinds = [kind for kind, _ in turns_of(bench)]
    assert kinds.count("tried") == RUNS
    assert ("tried", "tried") not in pairwise(kinds)
    said = [line for line in errors(caplog) if "cannot be advanced" in line]
    assert sorted(line.partition(": Raise")[0] for line in said) == sorted(
        f"workflow {run} cannot be advanced, and is tried again" for run in runs
    )
    mend(bench)
    runner = Runner(LOOP, host)

    def are_healed() -> bool:
        runner.run_once(bench.connection)
        return not any(trouble(bench, run) for run in runs)

    wait_until(are_healed)
    settle_all(bench.connection)
    states = bench.rows("SELECT state, count(*)::int AS n FROM opsjobs.jobs GROUP BY state")
    left = {row["state"]: row["n"] for row in states}
    assert (left.pop("finished"), sum(left.values())) == (ENDS, RUNS)
    assert "deferred" not in left


def test_trouble_is_logged_once_and_so_is_its_end(
    bench: Bench, host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "_TROUBLE_SECONDS", 0)
    caplog.set_level(logging.WARNING)
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    break_runs(bench, "true")
    runner = Runner(LOOP, host)
    for _ in range(4):
        runner.run_once(bench.connection)
        assert str(trouble(bench, graph.run)).startswith("RaiseException: ")
    mend(bench)
    runner.run_once(bench.connection)
    assert trouble(bench, graph.run) is None
    said = [r.getMessage() for r in caplog.records if r.name == "flask_opsjobs.workflows"]
    assert [line.partition(":")[0] for line in said] == [
        f"workflow {graph.run} cannot be advanced, and is tried again",
        f"workflow {graph.run} can be advanced again",
    ]
    settle_all(bench.connection)


def test_trouble_that_another_process_noted_too_late_goes_away(bench: Bench, host: Host) -> None:
    """It failed, another one advanced the run meanwhile, and nothing is left to do."""
    graph = Graph.make(bench.connection, "a", [])
    graph.end("a")
    settle_all(bench.connection)
    bench.connection.execute("UPDATE opsjobs.workflows SET trouble = 'it was'")
    Runner(LOOP, host).run_once(bench.connection)
    assert trouble(bench, graph.run) is None


@pytest.mark.slow
def test_many_runs_in_trouble_hold_up_no_other(bench: Bench, host: Host) -> None:
    """More than one pass looks at; the one that can be advanced comes last."""
    graphs = [Graph.make(bench.connection, "a b", ["a b"]) for _ in range(120)]
    for graph in graphs:
        graph.end("a")
    break_runs(bench, f"new.workflow_id <> {graphs[-1].run}")
    runner = Runner(LOOP, host)
    assert runner.run_once(bench.connection), "it goes on at once"

    def is_released_by_a_pass() -> bool:
        runner.run_once(bench.connection)
        return graphs[-1].states()["b"] == "available"

    # On a loaded machine the second of a pass is over before it has tried all others.
    wait_until(is_released_by_a_pass)
    assert graphs[0].states()["b"] == "deferred"
    mend(bench)
    settle_all(bench.connection)
    assert {graph.states()["b"] for graph in graphs} == {"available"}
