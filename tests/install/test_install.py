"""What `flask opsjobs install` says, writes and checks, typed beside an app of one file."""

from __future__ import annotations

import json
import re
import signal
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from flask_opsjobs.core.db import SCHEMA_VERSION
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import Newcomer

pytestmark = pytest.mark.slow

NIGHTLY = """

@opsjobs.cron("0 3 * * *")
@opsjobs.task
def nightly_sync() -> None: ...
"""
WHY = ("--reason", "to see it in the audit")


def test_it_is_done_when_an_action_stands_in_the_audit_also_from_nothing(
    newcomer: Newcomer, empty_database_url: str, tmp_path: Path
) -> None:
    """The last lines that the installer prints; and again after the database was dropped and created."""
    newcomer.does("db", "init")
    said = newcomer.does("opsjobs", "install")
    pause = re.search(r"`flask opsjobs (cron pause nightly_sync) --reason", said)
    assert pause is not None
    assert said.index("is installed only when") < pause.start() < said.index("audit list`")
    newcomer.adds(printed_lines(said) + NIGHTLY)
    code, said = newcomer.types("opsjobs", "install", "--check")
    assert code == 1, said
    due = f"the database has opsjobs schema 0, {SCHEMA_VERSION} is due: run `flask db upgrade`"
    assert due in said
    _reach_day_0(newcomer, pause[1], empty_database_url, tmp_path)
    ours = make_url(empty_database_url).set(drivername="postgresql")
    server = ours.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(f"DROP DATABASE {ours.database} WITH (FORCE)".encode())
        session.execute(f"CREATE DATABASE {ours.database}".encode())
    _reach_day_0(newcomer, pause[1], empty_database_url, tmp_path)


def _reach_day_0(newcomer: Newcomer, pause: str, url: str, folder: Path) -> None:
    newcomer.does("db", "upgrade")
    newcomer.does("opsjobs", "install", "--check")
    assert "cron.pause" not in newcomer.does("opsjobs", "audit", "list")
    words = [sys.executable, "-m", "flask", "opsjobs", "run"]
    env = newcomer.env
    loops = Child(words, folder / "loops", env, warm=env["PYTHONPATH"], folder=newcomer.folder)
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn, autocommit=True) as session:
            entries = "SELECT count(*) FROM opsjobs.cron_entries"
            wait_until(
                lambda: session.execute(entries).fetchone() == (1,), 60, what="the entry is known"
            )
    finally:
        loops.kill_all()
    newcomer.does("opsjobs", *pause.split(), *WHY)
    said = newcomer.does("opsjobs", "audit", "list")
    assert "nightly_sync" in said
    assert WHY[1] in said


def printed_lines(said: str) -> str:
    """The lines that the installer asks to add, as they are printed."""
    return textwrap.dedent(said.split("Add to app.py:")[1].split("Then run")[0])


def test_a_second_install_changes_nothing(installed: Newcomer) -> None:
    before = installed.files()
    assert "written  " not in installed.does("opsjobs", "install")
    assert installed.files() == before


@pytest.mark.lane
def test_what_a_killed_install_leaves_the_next_one_finishes(newcomer: Newcomer) -> None:
    newcomer.does("db", "init")
    before = newcomer.files()["migrations/env.py"]
    code, said = newcomer.types_and_is_killed("opsjobs", "install")
    assert code == -signal.SIGKILL, said
    left = newcomer.files()
    assert left["migrations/env.py"] == before
    (new,) = [name for name in left if name.endswith(".new")]
    assert "leave_out()" in left[new]
    newcomer.does("opsjobs", "install")
    done = newcomer.files()
    assert done["migrations/env.py"] == left[new]
    assert [name for name in done if name.endswith(".new")] == []


def test_migrate_sees_the_hosts_own_changes_only(installed: Newcomer) -> None:
    said = installed.does("db", "migrate", "-m", "users")
    assert "Detected added table 'user'" in said
    assert "opsjobs" not in said.replace(str(installed.folder), "")
    installed.does("db", "upgrade")
    assert "No changes in schema detected" in installed.does("db", "migrate")


def test_branches_on_purpose_take_our_schema_on_one_of_them(newcomer: Newcomer) -> None:
    newcomer.does("db", "init")
    newcomer.does("db", "revision", "-m", "base")
    newcomer.does("db", "revision", "-m", "a", "--branch-label", "billing")
    newcomer.does(
        "db", "revision", "-m", "b", "--head", "base", "--splice", "--branch-label", "shop"
    )
    newcomer.does("opsjobs", "install", "--head", "billing")
    code, said = newcomer.types("opsjobs", "install", "--check")
    assert code == 1
    assert "run `flask db upgrade heads`" in said
    newcomer.does("db", "upgrade", "heads")
    assert "due      the database" not in newcomer.types("opsjobs", "install", "--check")[1]


def test_check_asks_only_the_bind_that_holds_the_jobs(newcomer: Newcomer) -> None:
    """Of the others one is no PostgreSQL, and one does not answer."""
    ours = newcomer.env["HOST_SQLALCHEMY_DATABASE_URI"]
    newcomer.env |= {
        "HOST_SQLALCHEMY_DATABASE_URI": "sqlite://",
        "HOST_SQLALCHEMY_BINDS": json.dumps({"work": ours, "books": "sqlite://"}),
        "HOST_OPSJOBS_BIND": "work",
    }
    newcomer.does("db", "init", "--multidb")
    newcomer.adds(printed_lines(newcomer.does("opsjobs", "install")))
    assert "has opsjobs schema 0" in newcomer.types("opsjobs", "install", "--check")[1]
    newcomer.does("db", "upgrade")
    newcomer.does("opsjobs", "install", "--check")
    away = {"work": ours, "books": "postgresql+psycopg://nobody@127.0.0.1:1/nothing"}
    newcomer.env["HOST_SQLALCHEMY_BINDS"] = json.dumps(away)
    newcomer.does("opsjobs", "install", "--check")


def test_check_says_that_the_schema_is_newer_than_the_code(installed: Newcomer) -> None:
    later = "INSERT INTO opsjobs.schema_version (version) VALUES (99)"
    installed.runs(
        "from app import app, db\n"
        f"with app.app_context(): db.session.execute(db.text({later!r})); db.session.commit()"
    )
    code, said = installed.types("opsjobs", "install", "--check")
    assert code == 1
    assert (
        "the database has opsjobs schema 99, and this release of flask_opsjobs knows up to" in said
    )


def test_a_downgrade_beside_the_loops_is_refused_in_a_sentence(installed: Newcomer) -> None:
    url = make_url(installed.env["HOST_SQLALCHEMY_DATABASE_URI"]).set(drivername="postgresql")
    dsn = url.render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as session:
        now = read_clock(session)
        note_pass(session, None, Note("watch", "web-1-7", 1.0, 0.0, "nothing due"), now)
    code, said = installed.types("db", "downgrade")
    assert code == 1, said
    refused = "the schema opsjobs is not downgraded to version 0, because the process web-1-7 of the loops"
    assert refused in said.splitlines()[-1]
    assert "Traceback" not in said


def test_who_does_not_read_on_gets_every_file_and_no_complaint(newcomer: Newcomer) -> None:
    newcomer.does("db", "init")
    assert newcomer.pipes_away("opsjobs", "install") == ""
    files = newcomer.files()
    assert any("steps.upgrade(op" in text for name, text in files.items() if "versions" in name)
    assert "leave_out()" in files["migrations/env.py"]
    assert {"opsjobs_access.py", "opsjobs_display.py"} <= set(files)


def test_the_first_refusal_gives_advice_that_can_be_followed(newcomer: Newcomer) -> None:
    """Somebody who adds OpsJobs first, before there are policies, and does what each sentence says."""
    newcomer.does("db", "init")
    own = newcomer.files()["app.py"]
    newcomer.adds("from flask_opsjobs import OpsJobs\nopsjobs = OpsJobs(app)")
    code, said = newcomer.types("opsjobs", "install")
    assert code != 0
    assert "SECRET_KEY is not set" in said
    newcomer.env["HOST_SECRET_KEY"] = "made by secrets.token_hex()"
    code, said = newcomer.types("opsjobs", "install")
    assert code != 0
    assert "take OpsJobs out of the app again, run `flask opsjobs install`" in said
    (newcomer.folder / "app.py").write_text(own)
    newcomer.adds(printed_lines(newcomer.does("opsjobs", "install")))
    newcomer.does("db", "upgrade")
    newcomer.does("opsjobs", "install", "--check")


@pytest.mark.lane
def test_a_host_can_go_back(installed: Newcomer) -> None:
    installed.does("db", "downgrade")
    code, said = installed.types("opsjobs", "install", "--check")
    assert code == 1
    assert "the database has opsjobs schema 0" in said


def test_check_says_so_when_the_database_is_away(installed: Newcomer) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    code, said = installed.types(
        "opsjobs", "install", "--check", env={"HOST_SQLALCHEMY_DATABASE_URI": nowhere}
    )
    assert code == 1, said
    assert "the database does not answer, so its schema is unknown" in said
    assert "Traceback" not in said
