"""`flask opsjobs alive`: a probe that restarts what hangs, and nothing because Postgres is away."""

from __future__ import annotations

import socket
import threading
from typing import Any

import psycopg
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.host import Host
from tests.conftest import MakeApp
from tests.support import host as host_module
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


def _ask(app: Flask, *options: str) -> Result:
    return app.test_cli_runner().invoke(group, ["alive", *options])


@pytest.fixture
def running(site: Flask, children: Children) -> tuple[Child, Child]:
    """A worker and a process of the loops, both alive."""
    worker = children.flask("opsjobs", "worker", "default", OPSJOBS_HEARTBEAT_SECONDS=0.5)
    loops = children.flask("opsjobs", "run")
    worker.wait_for("listens to", 60)
    loops.wait_for("runs the loops", 60)
    wait_until(lambda: _ask(site, "--loops").exit_code == 0, 60)
    return worker, loops


def _is_silent(site: Flask, options: tuple[str, ...]) -> bool:
    """Let the last heartbeats be five minutes older, as after a wait that no test makes, and ask.

    What a frozen process had sent before may still be written.
    """
    for column, table in (("heartbeat_at", "workers"), ("last_at", "loop_runs")):
        aged = f"UPDATE opsjobs.{table} SET {column} = {column} - interval '5 min'"
        host_module.db.session.execute(text(aged))
    host_module.db.session.commit()
    done = _ask(site, *options)
    return done.exit_code == 1 and "is silent: its last heartbeat was" in done.output


@pytest.mark.processes
def test_a_worker_and_the_loops_run_hang_go_on_and_are_gone(
    site: Flask, running: tuple[Child, Child]
) -> None:
    worker, loops = running
    name = f"{socket.gethostname()}-{worker.pid}"
    asked: dict[tuple[str, ...], str] = {
        ("--worker", name): f"worker {name}-",
        ("--loops",): f"the process {socket.gethostname()}-{loops.pid} of the loops ",
    }
    for options, subject in asked.items():
        done = _ask(site, *options)
        assert (done.exit_code, done.output.startswith(subject)) == (0, True), done.output
        assert "is alive: its last heartbeat was" in done.output
    assert _ask(site).exit_code == 0
    assert _ask(site, "--worker", worker_name := _named(name)).exit_code == 0
    assert _ask(site, "--worker", worker_name[:-1]).exit_code == 1, "half a name is none"

    for process in running:
        process.freeze()
    for options in asked:
        wait_until(lambda options=options: _is_silent(site, options), 60)
    assert _ask(site).exit_code == 1

    for process in running:
        process.thaw()
    for options in asked:
        wait_until(lambda options=options: _ask(site, *options).exit_code == 0, 60)

    loops.kill()
    done = _ask(site, "--loops")
    assert (done.exit_code, "is gone: no process of this machine has its pid" in done.output) == (
        1,
        True,
    ), "it is said at once, although its last pass is not old"
    assert _ask(site).exit_code == 0, "the worker is alive"
    assert worker.terminate(60) == 0
    done = _ask(site, "--worker", name)
    assert (done.exit_code, " has stopped: its last heartbeat was" in done.output) == (1, True)


def _named(start: str) -> str:
    found = "SELECT name FROM opsjobs.workers WHERE starts_with(name, :start)"
    name: str = host_module.db.session.execute(text(found), {"start": start}).scalar_one()
    host_module.db.session.commit()
    return name


def test_processes_of_other_machines_do_not_count(site: Flask, bench: Any) -> None:
    # The worker of the bench is of another machine; the loops are of one whose name begins as ours does.
    bench.connection.execute(
        "INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)"
        " VALUES ('watch', %s, now(), now(), 1)",
        [f"{socket.gethostname()}-1-{1}"],
    )
    for options, subject in {
        (): "worker and no process of the loops",
        ("--worker", bench.name): f"worker {bench.name}",
        ("--loops",): "process of the loops",
    }.items():
        done = _ask(site, *options)
        said = f"no {subject} is known on this machine or in this container\n"
        assert (done.exit_code, done.output) == (1, said)


def test_it_asks_our_tables_once(site: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    assert _ask(site).exit_code == 1
    assert len([query for query in asked if "opsjobs." in query]) == 1


@pytest.mark.slow
def test_postgres_that_is_away_restarts_nobody(
    make_app: MakeApp, own_database_url: str, own_postgres: Any, app: Flask, host: Host
) -> None:
    away = _ask(make_app(SQLALCHEMY_DATABASE_URI=NOWHERE), "--loops")
    apart = make_app(SQLALCHEMY_DATABASE_URI=own_database_url)
    assert _ask(apart).exit_code == 1, "nothing runs there"
    own_postgres.freeze()
    frozen = _ask(apart)
    open_questions = [each for each in threading.enumerate() if each.name.endswith("(note)")]
    assert open_questions, "it does not wait until Postgres answers"
    own_postgres.thaw()
    with host.engine.begin() as connection:
        connection.execute(text("LOCK TABLE opsjobs.workers"))
        locked = _ask(app)
    for done, why in (
        (away, "did not answer (OperationalError"),
        (frozen, "did not answer within 2 s"),
        (locked, "did not answer within 2 s"),
    ):
        assert (done.exit_code, why in done.output) == (0, True), done.output
        assert "that is no reason to restart a process" in done.output
        assert "nobody" not in done.output


def test_only_one_process_is_asked_about(site: Flask) -> None:
    done = _ask(site, "--loops", "--worker", "web-1-7")
    assert (done.exit_code, "exclude each other" in done.output) == (2, True)
