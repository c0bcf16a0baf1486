"""A run that cannot be advanced: ends, heartbeats and other runs go on, it says so, and it heals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from flask_opsjobs.endings import pending
from flask_opsjobs.host import Host
from flask_opsjobs.loops.advance import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all
from tests.support.recording import Record, recording
from tests.support.waiting import wait_until

ENDS = 1_000
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


# Notes each transaction that moves steps which wait, and each heartbeat between them.
NOTE_TURNS = """
    CREATE TABLE public.turns (seq bigserial, kind text, tx bigint DEFAULT txid_current());
    CREATE FUNCTION note_turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.turns (kind) VALUES (tg_argv[0]); RETURN new; END $$;
    CREATE TRIGGER moved AFTER UPDATE ON opsjobs.jobs FOR EACH ROW
        WHEN (old.state = 'deferred' AND new.state <> 'deferred') EXECUTE FUNCTION note_turn('moved');
    CREATE TRIGGER beat AFTER UPDATE OF heartbeat_at ON opsjobs.workers FOR EACH ROW
        EXECUTE FUNCTION note_turn('beat');
"""


def trouble(bench: Bench, run: int) -> str | None:
    row = bench.row("SELECT trouble FROM opsjobs.workflows WHERE id = %s", run)
    found: str | None = row["trouble"]
    return found


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


@pytest.fixture(params=[0.2], ids=lambda seconds: f"{seconds}s")
def record(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Record]:
    """Ends jobs through a real recorder. The parameter is the time between heartbeats."""
    with recording(bench, request.param) as record:
        yield record


def make_fan(bench: Bench, ends: int = ENDS, behind: int = 1) -> tuple[int, list[int]]:
    """A run of started steps, and others behind them all; returns its id and the jobs that run."""
    found = bench.connection.execute(FAN, {"ends": ends, "steps": ends + behind}).fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize("record", [0.0], indirect=True)
@pytest.mark.parametrize(
    ("kind", "states"), [("returned", {"available", "queued"}), ("raised", {"canceled"})]
)
def test_a_heartbeat_comes_between_any_two_turns_of_a_large_run(
    bench: Bench, record: Record, kind: str, states: set[str]
) -> None:
    """And no turn moves more than 1,000 steps, so a heartbeat is late by one turn at most."""
    bench.connection.execute(NOTE_TURNS)
    _, jobs = make_fan(bench, 1, 2_500)
    record(jobs, kind)
    left = "SELECT 1 FROM opsjobs.jobs WHERE state = 'deferred' LIMIT 1"
    wait_until(lambda: not bench.rows(left), 60)
    events = "SELECT 1 FROM opsjobs.workflow_end_events LIMIT 1"
    wait_until(lambda: not bench.rows(events), 60, what="the recorder to make its last turn")
    turns = bench.rows(
        "SELECT kind, count(*) FROM public.turns GROUP BY kind, tx ORDER BY min(seq)"
    )
    sizes = [turn["count"] for turn in turns if turn["kind"] == "moved"]
    assert (sum(sizes), max(sizes)) == (2_500, 1_000)
    kinds = [turn["kind"] for turn in turns]
    assert ("moved", "moved") not in pairwise(kinds)
    events = "SELECT 1 FROM opsjobs.workflow_end_events LIMIT 1"
    wait_until(lambda: not bench.rows(events), 60, what="the recorder to be at rest")
    settle_all(bench.connection)
    rows = bench.rows("SELECT state FROM opsjobs.jobs WHERE NOT id = ANY (%s)", jobs)
    assert {row["state"] for row in rows} <= states


def test_ends_of_a_run_that_cannot_be_advanced_are_recorded_at_their_pace(
    bench: Bench,
    host: Host,
    record: Record,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Heartbeats come in time, one line is logged, and once it is mended the run heals by itself."""
    runs = [make_fan(bench) for _ in range(4)]
    paces: dict[bool, list[float]] = {True: [], False: []}
    for number, (run, jobs) in enumerate(runs):
        is_well = number % 2 == 0
        if not is_well:
            break_runs(bench, f"new.workflow_id = {run}")
        pace, late = record(jobs)
        paces[is_well].append(pace)
        assert late < 1
        if not is_well:
            wait_until(lambda run=run: trouble(bench, run), what="the run to say trouble")
            mend(bench)
    assert min(paces[False]) < 1.5 * min(paces[True]) + 0.2, paces
    said = [line for line in errors(caplog) if "cannot be advanced" in line]
    assert len(said) == 2, said
    assert said[0].startswith(
        f"workflow {runs[1][0]} cannot be advanced, and is tried again: Raise"
    )
    ended = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'finished'")
    assert ended["n"] == 4 * ENDS
    runner = Runner(LOOP, host)
    for _ in range(6):
        runner.run_once(bench.connection)
    for run, _ in runs:
        assert trouble(bench, run) is None
    settle_all(bench.connection)
    released = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state <> 'finished'")
    assert released["n"] == 4
    assert bench.rows("SELECT 1 FROM opsjobs.jobs WHERE state = 'deferred'") == []


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
