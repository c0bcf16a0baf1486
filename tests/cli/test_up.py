"""`flask opsjobs up`: workers and loops as one command, called as a developer does."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

import click
import psycopg
import pytest
from flask.cli import ScriptInfo

from flask_opsjobs.cli import opsjobs
from flask_opsjobs.cli.up import again
from tests.support import host as host_module
from tests.support.processes import Children
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "kind", [pytest.param((), marks=pytest.mark.variants), ("--processes", "2")]
)
def test_jobs_run_and_ctrl_c_ends_everything(
    children: Children, database_url: str, redis_url: str, kind: tuple[str, ...]
) -> None:
    up = children.flask("opsjobs", "up", "--workers", "2", *kind)
    for name in ("worker.1", "worker.2"):
        up.wait_for(f"{name} | ", 30)
    up.wait_for("runs the loops", 30)
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        for number in range(5):
            host_module.add.options(delay=0.01).enqueue(a=1, b=number)
        host_module.db.session.commit()
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:

        def states() -> Any:
            return connection.execute(
                "SELECT state, count(*) FROM opsjobs.jobs GROUP BY 1"
            ).fetchall()

        wait_until(lambda: states() == [("finished", 5)], 30)
        family = up.children()
        up.signal(signal.SIGINT)
        assert up.wait(20) == 0
        assert not any(process.is_running() for process in family)
        wait_until(
            lambda: (
                connection.execute("SELECT DISTINCT state FROM opsjobs.workers").fetchall()
                == [("stopped",)]
            )
        )
    assert "Traceback" not in up.log


def test_a_killed_worker_is_started_again(children: Children) -> None:
    up = children.flask("opsjobs", "up", "--queue", "default")
    up.wait_for("listens to default", 30)
    (pid,) = re.findall(r"-(\d+)-\w+ listens to default", up.log)
    os.kill(int(pid), signal.SIGKILL)
    up.wait_for("worker.1 starts again in 0.5 s")
    wait_until(lambda: up.log.count("listens to default") == 2, 30)
    assert up.terminate(20) == 0


def test_without_a_schema_it_says_what_to_run_and_starts_nothing(
    children: Children, empty_database_url: str
) -> None:
    up = children.flask("opsjobs", "up", SQLALCHEMY_DATABASE_URI=empty_database_url)
    assert up.wait(60) == 2
    assert up.log.startswith("Error: ")
    assert "flask db upgrade" in up.log
    assert "worker.1" not in up.log


def _words(info: ScriptInfo, *words: str) -> list[str]:
    with click.Context(opsjobs, obj=info) as ctx:
        return again(ctx, *words)


def test_a_command_is_called_again_for_the_same_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    flask = [sys.executable, "-m", "flask"]
    assert _words(ScriptInfo("pkg.app:make"), "opsjobs", "run") == [
        *flask,
        "--app",
        "pkg.app:make",
        "opsjobs",
        "run",
    ]
    assert _words(ScriptInfo(), "routes") == [*flask, "routes"]
    script = tmp_path / "manage.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script), "opsjobs", "up"])
    made = ScriptInfo(create_app=lambda: None)  # type: ignore[arg-type,return-value]
    assert _words(made, "opsjobs", "run") == [sys.executable, str(script), "opsjobs", "run"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/flask", "opsjobs", "up"])
    assert _words(made, "opsjobs", "run") == [*flask, "opsjobs", "run"]


def test_every_command_is_found_by_its_module() -> None:
    with click.Context(opsjobs) as ctx:
        names = opsjobs.list_commands(ctx)
        assert {"install", "retain", "run", "up", "worker"} <= set(names)
        for name in names:
            command = opsjobs.get_command(ctx, name)
            assert command is not None
            assert command.name == name
            assert command.help
        assert opsjobs.get_command(ctx, "_operate") is None
        assert opsjobs.get_command(ctx, "nonsense") is None
