"""The process of the loops tells the host while workers, Redis or Postgres are away, and after its death."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.detectors import postgres_away
from flask_opsjobs.loops import escalate
from flask_opsjobs.loops.loop import Loop, Pass, Runner, every
from flask_opsjobs.loops.process import LoopsProcess, LoopThread
from tests.escalations.telling import Teller
from tests.loops.test_process import new_outage, told_after
from tests.support.escalating import Acting
from tests.support.processes import Child, Children, is_alive
from tests.support.waiting import wait_until

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def teller(host: Host) -> Iterator[Teller]:
    """Makes incidents, and reads what is stored; makes no passes."""
    with closing(Teller(host)) as teller:
        yield teller


def start_loops(children: Children, policy: Acting, **config: Any) -> Child:
    """The process of the loops, with the policy."""
    loops = children.flask("opsjobs", "run", ESCALATES_IN=str(policy.calls.parent), **config)
    loops.wait_for("runs the loops", 30)
    return loops


def test_it_reaches_the_host_without_a_worker_and_without_redis(
    children: Children, teller: Teller, policy: Acting
) -> None:
    loops = start_loops(children, policy, OPSJOBS_REDIS_URL=NOWHERE)
    incident = teller.find()
    wait_until(lambda: (1, "opened", "invoked") in teller.told(), 20)
    assert policy.told()[0]["incident"] == incident
    assert teller.rows("SELECT name FROM opsjobs.workers WHERE kind <> 'loops'") == []
    assert loops.terminate(15) == 0
    (worker,) = teller.rows("SELECT state FROM opsjobs.workers")
    assert worker["state"] == "stopped"


def test_loops_that_are_killed_in_the_call_invoke_once(
    children: Children, teller: Teller, policy: Acting
) -> None:
    policy.act("hangs")
    loops = start_loops(children, policy)
    teller.find()
    hangs = policy.calls.with_name("hangs")
    wait_until(lambda: hangs.exists() and hangs.read_text(), 20)
    family = loops.children()
    assert int(hangs.read_text()) in {process.pid for process in family}
    loops.kill()
    # The process of the call ends with the loops.
    wait_until(lambda: not any(map(is_alive, family)))
    assert teller.told() == [(1, "opened", "pending")]

    policy.act("")
    start_loops(children, policy)
    start_loops(children, policy)
    wait_until(lambda: (1, "opened", "invoked") in teller.told(), 30)
    # The loops find soon that the queue is served, and tell that too.
    calls = [facts for facts in policy.told() if facts["event"] == "opened"]
    assert [facts["attempt"] for facts in calls] == [1, 2]
    assert len({facts["key"] for facts in calls}) == 1
    assert [told for told in teller.told() if told[1] == "opened"] == [(1, "opened", "invoked")]
    outcomes = teller.rows("SELECT outcome FROM opsjobs.attempts WHERE job_id = 1 ORDER BY attempt")
    assert [row["outcome"] for row in outcomes] == ["lost", "returned"]


def test_a_fault_of_another_loop_does_not_stop_it(
    app: Flask, host: Host, teller: Teller, policy: Acting
) -> None:
    def fail(_: Pass) -> str:
        raise RuntimeError("always")

    teller.find()
    bad = Loop("detect", every(0.01), fail, is_alone=True)
    process = LoopsProcess(host, [bad, escalate.LOOP], surround=app.app_context)
    told_after(lambda: bool(policy.told()), signal.SIGTERM)
    assert process.run() == 0
    assert teller.told() == [(1, "opened", "invoked")]


@pytest.mark.chaos
@pytest.mark.slow
def test_an_outage_of_postgres_is_told_once_when_it_is_back(
    make_app: Callable[..., Flask],
    own_postgres: Any,
    own_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(postgres_away, "SHORTEST", postgres_away.SHORTEST / 50)
    policy = Acting(tmp_path)
    app = make_app(SQLALCHEMY_DATABASE_URI=own_database_url, escalation=policy)
    host: Host = app.extensions["opsjobs"]
    stop = threading.Event()
    runner = Runner(escalate.LOOP, host)
    runner.prepare()
    thread = LoopThread(runner, stop, new_outage(), app.app_context)
    thread.start()
    wait_until(lambda: runner.run_id is not None)
    own_postgres.stop()
    wait_until(lambda: "Postgres is away" in caplog.text, 30)
    own_postgres.start()
    wait_until(lambda: bool(policy.told()), 60)
    stop.set()
    thread.join(30)
    with closing(connect_apart(host.engine)) as connection:
        rows = connection.execute(
            "SELECT i.class, e.event, e.state FROM opsjobs.escalations e"
            " JOIN opsjobs.incidents i ON i.id = e.incident_id"
        ).fetchall()
    assert rows == [("postgres_away", "opened", "invoked")]
    (facts,) = policy.told()
    assert facts["title"].startswith("Postgres did not answer for")
