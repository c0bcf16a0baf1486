"""Whatever is in the way of a command is told in one sentence, with an exit code,
and never by a traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import ConfigError, OpsJobs
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core.reading import WHAT_HELPS, WHAT_NARROWS
from flask_opsjobs.host import Host
from tests.conftest import MakeApp
from tests.support.engine import Bench, tasks_of

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
REASON = ("--reason", "because it is a test")
# Every command, with what it is called with.
WORDS: dict[str, tuple[str, ...]] = {
    "alive": (),
    "audit export": (),
    "audit list": (),
    "audit verify": (),
    "batch cancel": ("1", *REASON),
    "batch close": ("1", *REASON),
    "batch retry": ("1", *REASON),
    "cron catch-up": ("nightly", "3", *REASON),
    "cron delete": ("nightly", *REASON),
    "cron list": (),
    "cron pause": ("nightly", *REASON),
    "cron resume": ("nightly", *REASON),
    "cron run-now": ("nightly", *REASON),
    "incident acknowledge": ("1", "--until", "2h", *REASON),
    "incident resolve": ("1", *REASON),
    "incident show": ("1",),
    "incident unacknowledge": ("1", *REASON),
    "incidents": (),
    "delivery remove": ("opsjobs-1-1", *REASON),
    "deployed": ("2026.11.3",),
    "doctor": (),
    "enqueue": ("charge", "account_id=1", *REASON),
    "escalate": ("--test",),
    "failures": (),
    "failure ignore": ("1", "--more", "3", *REASON),
    "failure resolve": ("1", *REASON),
    "forensics": ("job/1",),
    "install": (),
    "jobs": (),
    "job cancel": ("1", *REASON),
    "job delete": ("1", *REASON),
    "job discard": ("1", *REASON),
    "job edit": ("1", "--priority", "3", *REASON),
    "job reschedule": ("1", "--due-at", "now", *REASON),
    "job recall": ("1", *REASON),
    "job rescue": ("1", *REASON),
    "job retry": ("1", *REASON),
    "job run-again": ("1", *REASON),
    "job skip": ("1", *REASON),
    "lease release": ("1-1", *REASON),
    "limiter clear": ("api", *REASON),
    "limiter cooldown": ("api", "--minutes", "5", *REASON),
    "limiter explain": ("api",),
    "limiter list": (),
    "limiter simulate": ("charge", "--count", "3", "--rate", "1", "--per", "1", "--from-live"),
    "metrics": (),
    "note": ("job/1", "the vendor is away"),
    "operation cancel": ("1", *REASON),
    "operation list": (),
    "operation pause": ("1", *REASON),
    "operation resume": ("1", *REASON),
    "operation show": ("1",),
    "operation start": ("cancel", "state:available", *REASON),
    "operation undo": ("1", *REASON),
    "queue clear": ("mail", *REASON),
    "queue list": (),
    "queue drain": ("mail", *REASON),
    "queue pause": ("mail", *REASON),
    "queue resume": ("mail", *REASON),
    "queue resync": ("mail", *REASON),
    "queue set-prefetch": ("mail", "5", *REASON),
    "restore": (),
    "retain": (),
    "run": (),
    "signal": ("payment", "--key", "order-1"),
    "task pause": ("note", *REASON),
    "task resume": ("note", *REASON),
    "tasks": (),
    "uninstall": (),
    "up": (),
    "why": ("1",),
    "worker": (),
    "workers": (),
    "workers drain": ("web-1", *REASON),
    "workers forget": ("web-1", *REASON),
    "workers stop": ("web-1", *REASON),
    "workflow cancel": ("1", *REASON),
    "workflow give-signal": ("1", "--wait", "paid", "--signal", "1", *REASON),
    "workflow retry": ("1", *REASON),
    "workflow signal": ("1", "--wait", "paid", *REASON),
    "workflow skip": ("1", "--step", "fetch", *REASON),
}
# What these need is in no case below: an app with Flask-Migrate.
APART = ("install", "uninstall")
# The first reads nothing of Postgres: tests/cli/test_escalate.py. The second one's answer is that Postgres
# does not answer: tests/telemetry/test_doors.py.
WITHOUT_POSTGRES = ("escalate", "metrics")
# This answers whatever is in the way: tests/doctor/test_in_the_way.py.
EXAMINES = ("doctor",)
# Its exit code restarts processes, which helps against neither of these: tests/cli/test_alive.py.
PROBE = ("alive",)
# A query of these may take as long as one of a page.
LIMITED = (
    "cron list",
    "failures",
    "forensics",
    "incident show",
    "incidents",
    "jobs",
    "limiter explain",
    "limiter list",
    "operation list",
    "operation show",
    "queue list",
    "tasks",
    "why",
    "workers",
)
every = pytest.mark.parametrize(
    "name", [name for name in WORDS if name not in (*APART, *WITHOUT_POSTGRES, *EXAMINES)]
)


def _leaves(command: click.Command, name: str = "") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield name
        return
    if command.invoke_without_command:
        yield name
    with click.Context(command) as ctx:
        for each in command.list_commands(ctx):
            found = command.get_command(ctx, each)
            assert found is not None
            yield from _leaves(found, f"{name} {each}".strip())


def test_the_table_has_every_command() -> None:
    assert sorted(_leaves(group)) == sorted(WORDS)


def _run(app: Flask, name: str) -> Result:
    return app.test_cli_runner().invoke(group, [*name.split(), *WORDS[name]])


def _sentence(done: Result, code: int = 2) -> str:
    assert done.exit_code == code, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    said = done.output.splitlines()
    assert len(said) == 1
    assert said[0].startswith("Error: ")
    return said[0]


@pytest.fixture
def make(make_app: MakeApp, opsjobs: OpsJobs) -> Callable[..., Flask]:
    """Makes a host with one task."""

    @opsjobs.task(enqueue_from_page=True)
    def charge(account_id: int) -> None: ...

    return lambda **config: make_app(opsjobs=opsjobs, **config)


@pytest.mark.parametrize("name", [name for name in WORDS if name not in EXAMINES])
def test_an_app_that_has_not_joined(name: str) -> None:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = NOWHERE
    SQLAlchemy(app)
    said = _sentence(_run(app, name), 1 if name in APART else 2)
    if name not in APART:
        assert "the app 'shop' has not joined OpsJobs: run `flask opsjobs install`" in said


def test_an_app_that_refuses_to_start() -> None:
    def create_app() -> Flask:
        raise ConfigError("OPSJOBS_RESCUE = 'maybe' is not allowed")

    done = CliRunner().invoke(group, ["run"], obj=ScriptInfo(create_app=create_app))
    assert "OPSJOBS_RESCUE = 'maybe' is not allowed" in _sentence(done)


@every
def test_a_schema_that_is_missing(
    name: str, make: Callable[..., Flask], empty_database_url: str
) -> None:
    done = _run(make(SQLALCHEMY_DATABASE_URI=empty_database_url), name)
    if name == "why":  # which explains it: tests/cli/test_why.py
        assert (done.exit_code, "schema_behind" in done.output) == (0, True)
        return
    assert "'opsjobs' is missing, this code needs" in _sentence(done)
    assert "`flask db upgrade`" in done.output


@pytest.mark.parametrize(
    "name",
    [name for name in WORDS if name not in (*APART, *WITHOUT_POSTGRES, *EXAMINES, *PROBE)],
)
def test_a_schema_that_is_newer_than_the_code(
    name: str, make: Callable[..., Flask], bench: Bench
) -> None:
    bench.connection.execute("INSERT INTO opsjobs.schema_version (version) VALUES (99)")
    app = make()
    said = _sentence(_run(app, name))
    assert "is at version 99, this code runs on up to version " in said
    assert "run the release of flask_opsjobs that the database was upgraded with" in said


# The loops wait for Postgres at their start, as long as it takes: tests/loops/test_process.py.
@pytest.mark.parametrize(
    "name",
    [name for name in WORDS if name not in (*APART, *WITHOUT_POSTGRES, *EXAMINES, *PROBE, "run")],
)
def test_postgres_is_away(name: str, make: Callable[..., Flask]) -> None:
    said = _sentence(_run(make(SQLALCHEMY_DATABASE_URI=NOWHERE), name))
    assert "did not answer (OperationalError" in said
    assert "nobody" not in said


@pytest.mark.parametrize("name", LIMITED)
def test_a_query_that_takes_too_long(name: str, make: Callable[..., Flask], bench: Bench) -> None:
    app = make(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2)
    with bench.connection.transaction():
        # Whoever holds these locks makes every query wait for them.
        tables = bench.row(
            "SELECT string_agg(oid::regclass::text, ', ') AS names FROM pg_class "
            "WHERE relnamespace = 'opsjobs'::regnamespace AND relkind = 'r' "
            "AND relname <> 'schema_version'"
        )["names"]
        bench.connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        said = _sentence(_run(app, name))
    helps = WHAT_NARROWS if name == "jobs" else WHAT_HELPS
    assert said == f"Error: the query took longer than 0.2 s. {helps}"


# A worker starts without Redis: tests/engine/test_without_redis.py.
def test_redis_is_away(make: Callable[..., Flask]) -> None:
    app = make(OPSJOBS_REDIS_URL="redis://user:s3cret@127.0.0.1:1/0")
    said = _sentence(_run(app, "up"))
    assert "Redis at 127.0.0.1:1 does not answer (ConnectionError: " in said
    assert "OPSJOBS_REDIS_URL" in said
    assert "s3cret" not in said


def test_what_is_enqueued_in_the_middle_of_a_deploy_is_stored(
    make: Callable[..., Flask], bench: Bench
) -> None:
    bench.connection.execute("INSERT INTO opsjobs.schema_version (version) VALUES (99)")
    app = make()
    host: Host = app.extensions["opsjobs"]
    with app.app_context():
        charge = tasks_of(host)["charge"]
        enqueued = charge.enqueue(account_id=1)
        charge.enqueue_many([{"account_id": 2}])
        app.extensions["sqlalchemy"].session.commit()
    assert enqueued.state == "available"
    assert bench.row("SELECT count(*) FROM opsjobs.jobs")["count"] == 2


def _started(command: str, info: ScriptInfo) -> str:
    """What a command of an app that does not start says: one sentence."""
    done = CliRunner().invoke(group, [command], obj=info)
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert done.output.startswith("Error: the app does not start: ")
    assert done.output.endswith(" Then run this command again.\n")
    return done.output


@pytest.mark.parametrize("command", ["up", "worker", "run", "workers"])
def test_an_app_that_does_not_start(command: str, tmp_path: Path) -> None:
    for text, says in (
        ("def (", "SyntaxError: invalid syntax"),
        ("import shop_settings_of_nobody", "No module named 'shop_settings_of_nobody'"),
        ("{}['MAIL_SERVER']", "KeyError: 'MAIL_SERVER'"),
    ):
        path = tmp_path / f"shop_{text[0]}.py".replace("{", "x")
        path.write_text(text)
        said = _started(command, ScriptInfo(str(path)))
        assert says in said
        assert "`flask routes` prints where it was raised." in said


@pytest.mark.parametrize("name", ["app_of_nobody", "json:foo", "json:foo()", "json"])
def test_an_app_that_is_not_found(name: str) -> None:
    said = _started("worker", ScriptInfo(name))
    assert "Name your app with --app or FLASK_APP" in said
    assert "was raised" not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+asyncpg://a@b/c", "No module named 'asyncpg'"),
        ("postgresql+psycopg2://a@b/c", "No module named 'psycopg2'"),
        ("postgres://a@b/c", "Can't load plugin: sqlalchemy.dialects:postgres"),
        ("mysql://a@b/c", "No module named 'MySQLdb'"),
        ("psycopg://a@b/c", "Can't load plugin: sqlalchemy.dialects:psycopg"),
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("", "Could not parse SQLAlchemy URL"),
        ("postgresql+psycopg://a:b@c:s3cr3t/d", "ValueError"),
    ],
)
def test_a_wrong_url_of_the_database(url: str, says: str) -> None:
    def create_app() -> Flask:
        app = Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        SQLAlchemy(app)
        return app

    said = _started("up", ScriptInfo(create_app=create_app))
    assert says in said
    assert "Write the URL of the database as postgresql+psycopg://…" in said
    assert "in SQLALCHEMY_DATABASE_URI or SQLALCHEMY_BINDS." in said
    assert "was raised" not in said
    assert "s3cr3t" not in said
