"""`flask opsjobs uninstall`: what it says and refuses, and that all databases migrate without the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ConfigError
from flask_opsjobs.install import removal
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from tests.support.database import Databases

from .conftest import APP, Newcomer
from .test_newcomer import printed_lines

URL = "HOST_SQLALCHEMY_DATABASE_URI"
TASK = """
@opsjobs.task
def greet(name: str) -> None: ...
"""
ENQUEUE = """
from app import app, db, greet
with app.app_context():
    greet.enqueue("you")
    db.session.commit()
"""
STATE = """
SELECT to_regnamespace('opsjobs') IS NULL, to_regclass('public.user') IS NOT NULL,
    (SELECT string_agg(version_num, ' ') FROM alembic_version)
"""


def session_of(url: str) -> psycopg.Connection[Any]:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(dsn, autocommit=True)


@pytest.fixture
def others(databases: Databases) -> Iterator[list[str]]:
    """Two more empty databases."""
    urls = [databases.empty(), databases.empty()]
    yield [url.render_as_string(hide_password=False) for url in urls]
    for url in urls:
        databases.drop(url)


def migrations(newcomer: Newcomer) -> dict[str, str]:
    return {name: text for name, text in newcomer.files().items() if name.startswith("migrations")}


@pytest.mark.slow(20)
def test_three_databases_migrate_to_head_without_the_package(
    newcomer: Newcomer, others: list[str], own_python: str
) -> None:
    """One that had everything, a fresh one, and one that had stopped before our first revision."""
    everything, (fresh, stopped) = newcomer.env[URL], others
    newcomer.env |= {"HOST_SECRET_KEY": "only for tests", "HOST_OPSJOBS_DISPATCH": "false"}
    newcomer.does("db", "init")
    env_py = newcomer.files()["migrations/env.py"]
    newcomer.does("db", "migrate", "-m", "users")
    assert newcomer.types("db", "upgrade", env={URL: stopped})[0] == 0
    newcomer.adds(printed_lines(newcomer.does("opsjobs", "install")) + TASK)
    newcomer.does("db", "revision", "-m", "later")
    newcomer.does("db", "upgrade")
    newcomer.runs(ENQUEUE)
    before = newcomer.files()

    with session_of(everything) as session:
        now = read_clock(session)
        note_pass(session, None, Note("dispatch", "web-1-7", 1.0, 0.0, "nothing due"), now)
        code, said = newcomer.types("opsjobs", "uninstall")
        assert code == 1, said
        assert "    opsjobs.jobs: 1 row\n" in said
        assert (
            "the process web-1-7 of the loops sent a heartbeat just now; 1 job is available" in said
        )
        assert "`flask opsjobs uninstall`" in said
        session.execute("CREATE VIEW of_host AS SELECT id FROM opsjobs.jobs")
        said = newcomer.does("opsjobs", "uninstall", "--dry-run")
        assert "    the view of_host, which needs a table of opsjobs\n" in said
        assert newcomer.files() == before
        session.execute("DELETE FROM opsjobs.loop_runs")
    assert "1 job is available" in newcomer.types("opsjobs", "uninstall")[1]
    newcomer.does("opsjobs", "job", "cancel", "1", "--reason", "the shop closes")

    said = newcomer.does("opsjobs", "uninstall")
    assert "a revision that drops the schema opsjobs, in plain SQL" in said
    assert re.search(r"^    app\.py:\d+: from flask_opsjobs import OpsJobs$", said, re.M)
    assert "`flask db upgrade`" in said
    assert newcomer.files()["migrations/env.py"] == env_py
    after = newcomer.files()
    assert {n for n in before if before[n] != after[n]} == {
        "migrations/env.py",
        *(name for name in before if "opsjobs_schema" in name),
    }
    assert "written" not in newcomer.does("opsjobs", "uninstall")
    assert newcomer.files() == after

    (newcomer.folder / "app.py").write_text(APP)
    alone = Newcomer(newcomer.folder, {**newcomer.env, "PYTHONPATH": ""}, False, own_python)
    assert "ModuleNotFoundError" in alone._python("-c", "import flask_opsjobs")[1]
    heads = set()
    for url in (everything, fresh, stopped):
        code, said = alone.types("db", "upgrade", env={URL: url})
        assert code == 0, said
        with session_of(url) as session:
            is_gone, has_users, head = session.execute(STATE).fetchone()
        assert (is_gone, has_users) == (True, True)
        heads.add(head)
    assert len(heads) == 1
    assert "remove opsjobs" in alone.does("db", "heads", "--verbose")


@pytest.mark.parametrize(
    ("source", "without"),
    [
        (
            "from flask_opsjobs.install import steps\nx = 1\n"
            "def up():\n    steps.upgrade(op, to=1)  # ours\n",
            "x = 1\ndef up():\n    pass",
        ),
        (
            "import flask_opsjobs.install.steps as ours\n"
            "def up():\n    ours.upgrade(\n        op,\n        1,\n    )\n    op.execute('x')\n",
            "def up():\n    pass",
        ),
        (
            "def up():\n    from flask_opsjobs.install import steps as s\n    s.upgrade(op, 1)\n",
            "def up():\n    pass\n    pass",
        ),
        ("# flask_opsjobs was never here\n", "# flask_opsjobs was never here\n"),
    ],
)
def test_our_calls_are_taken_out(source: str, without: str) -> None:
    text = removal.without_us(Path("migrations/versions/one.py"), source)
    assert text.startswith(without), text
    assert ("op.execute('x')" in source) == ("op.execute('x')" in text)
    compile(text, "one.py", "exec")


@pytest.mark.parametrize(
    "source",
    [
        "from flask_opsjobs.install import steps\ndef up():\n    if steps.version(op): pass\n",
        "from flask_opsjobs.install import steps\ndef up(): x = 1; steps.upgrade(op, to=1)\n",
        "import os, flask_opsjobs\n",
    ],
)
def test_a_use_of_a_persons_own_is_refused_with_its_place(source: str) -> None:
    with pytest.raises(ConfigError, match=r"one\.py uses flask_opsjobs in a way of its own, in `"):
        removal.without_us(Path("migrations/versions/one.py"), source)
