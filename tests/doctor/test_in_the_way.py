"""The doctor answers whatever is in the way: no app, no Postgres, no schema."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import FlaskGroup, ScriptInfo
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import ConfigError
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.doctor.registry import CHECKS
from tests.cli.test_not_asked import NOWHERE
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows


def _doctor(app: Callable[[], Flask], *words: str) -> Result:
    return CliRunner().invoke(group, ["doctor", *words], obj=ScriptInfo(create_app=app))


def _values(app: Callable[[], Flask], *words: str) -> dict[str, Any]:
    done = _doctor(app, "--json", *words)
    found: dict[str, Any] = json.loads(done.output)
    assert found["exit_code"] == done.exit_code
    return found


def _refuses() -> Flask:
    raise ConfigError("OPSJOBS_RESCUE = 'maybe' is not allowed; see redis://user:s3cr3t@cache/0")


def _is_broken() -> Flask:
    raise KeyError("MAIL_SERVER")


@pytest.mark.parametrize(
    ("create_app", "why", "helps"),
    [
        (_refuses, "OPSJOBS_RESCUE = 'maybe' is not allowed", False),
        (_is_broken, "KeyError: 'MAIL_SERVER'. `flask routes` prints where it was raised.", True),
    ],
)
def test_an_app_that_does_not_start(create_app: Callable[[], Flask], why: str, helps: bool) -> None:
    done = _doctor(create_app)
    assert done.exit_code == 2
    assert "The app does not start." in done.output
    assert why in done.output
    assert "s3cr3t" not in done.output
    # No command of ours starts either, so none is proposed.
    assert "flask opsjobs" not in done.output
    if helps:
        found = CliRunner().invoke(FlaskGroup(), ["routes"], obj=ScriptInfo(create_app=create_app))
        frames = traceback.extract_tb(found.exception.__traceback__)
        assert frames[-1].name == create_app.__name__
    first, *rest = _values(create_app)["checks"]
    assert (first["id"], first["state"]) == ("config.app", "error")
    assert len(rest) == len(CHECKS) - 1
    assert {(each["state"], each["because"]) for each in rest} == {("skipped", "config.app")}


@shows("config.app")
def test_an_app_that_has_not_joined(ask: Ask) -> None:
    app = Flask("shop")
    assert ask("config.app").state == "ok"
    assert ask("config.app", app).state == "error"
    done = _doctor(lambda: app)
    assert done.exit_code == 2
    assert "The app 'shop' has not joined OpsJobs: run `flask opsjobs install`" in done.output


def test_postgres_is_away(make_well: MakeApp) -> None:
    app = make_well(SQLALCHEMY_DATABASE_URI=NOWHERE)
    found = {each["id"]: each for each in _values(lambda: app)["checks"]}
    away = found["postgres.reachable"]
    assert (away["state"], away["sentence"]) == ("error", "Postgres does not answer.")
    assert away["evidence"].startswith("OperationalError: ")
    assert found["schema.version"]["because"] == "postgres.reachable"
    assert found["access.open"]["state"] == "ok"
    # The checks that need Postgres are said in one line, each prefix once.
    because = [each for each in found.values() if each["because"] == "postgres.reachable"]
    lines = _doctor(lambda: app).output.splitlines()
    (line,) = [each for each in lines if each.startswith("skipped") and "postgres." in each]
    start = f"skipped   {len(because)} checks need Postgres (postgres.reachable failed): "
    assert line.startswith(f"{start}schema.version, objects, indexes, ")
    assert "; loops.awake, failing, slow, " in line
    names = [name for part in line.removeprefix(start).split("; ") for name in part.split(", ")]
    assert len(names) == len(because)
    # What could not be asked is an error, also when only that is asked.
    assert _doctor(lambda: app, "--only", "schema.version").exit_code == 2


@shows("schema.version", "error")
def test_the_schema_is_missing(make_well: MakeApp, empty_database_url: str, ask: Ask) -> None:
    app = make_well(SQLALCHEMY_DATABASE_URI=empty_database_url)
    assert ask("schema.version").state == "ok"
    assert ask("schema.version", app).state == "error"
    found = {each["id"]: each for each in _values(lambda: app)["checks"]}
    assert found["schema.version"]["sentence"].startswith("The database has opsjobs schema 0, ")
    assert found["schema.version"]["run"] == "flask db upgrade"
    assert found["postgres.vacuum"]["because"] == "schema.version"
    assert found["postgres.version"]["state"] == "ok"


def test_what_is_chosen_is_asked(app: Flask) -> None:
    ids = [each["id"] for each in _values(lambda: app, "--only", "config.debug")["checks"]]
    assert ids == ["config.debug"]
    ids = [each["id"] for each in _values(lambda: app, "--skip", "config.debug")["checks"]]
    assert ids == [id_ for id_ in CHECKS if id_ != "config.debug"]
    unknown = _doctor(lambda: app, "--only", "config.nothing")
    assert (unknown.exit_code, "there is no check 'config.nothing'" in unknown.output) == (2, True)
    none = _doctor(lambda: app, "--only", "config.debug", "--skip", "config.debug")
    assert (none.exit_code, "leaves out all checks" in none.output) == (2, True)


def test_the_list_asks_nothing() -> None:
    done = _doctor(_refuses, "--list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == list(CHECKS)


def test_a_host_without_an_app_is_told_what_flask_says() -> None:
    done = CliRunner().invoke(group, ["doctor"], obj=ScriptInfo(app_import_path="nothing_here"))
    assert done.exit_code == 2
    assert "The app does not start." in done.output
    assert SQLAlchemy.__name__ not in done.output
