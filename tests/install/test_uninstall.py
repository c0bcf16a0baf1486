"""`flask opsjobs uninstall`: what it says and refuses, and that all databases migrate without the package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from sqlalchemy.engine import make_url

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ConfigError
from flask_opsjobs.install import removal
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from tests.support.database import Databases
from tests.support.sources import ROOT

from .conftest import APP, Newcomer
from .test_install import printed_lines

URL = "HOST_SQLALCHEMY_DATABASE_URI"
PAGE = (ROOT / "docs/uninstalling.md").read_text()
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


def lasting(redis: Redis) -> set[bytes]:
    """The keys that do not expire by themselves."""
    return {key for key in redis.scan_iter() if redis.ttl(key) == -1}


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
        code, said = newcomer.types("opsjobs", "uninstall", "--dry-run")
        assert code == 1, said
        would = (
            r"Error: would be refused: the process web-1-7 of the loops .+; 1 job is available: .+"
        )
        assert re.fullmatch(would, said.splitlines()[-1])
        assert newcomer.types("opsjobs", "uninstall", "--dry-run", "--force")[0] == 0
        assert "    the view of_host, which needs a table of opsjobs\n" in said
        assert newcomer.files() == before
        session.execute("DELETE FROM opsjobs.loop_runs")
    said = newcomer.types("opsjobs", "uninstall")[1]
    assert "1 job is available: let the jobs end or cancel them, then run" in said
    assert said.endswith("again, or with --force to lose these jobs\n")
    newcomer.does("opsjobs", "job", "cancel", "1", "--reason", "the shop closes")
    with session_of(everything) as session:
        now = read_clock(session)
        note_pass(session, None, Note("watch", "web-1-7", 1.0, 0.0, "nothing due"), now)
        long_ago = now - timedelta(hours=1)
        note_pass(session, None, Note("cron", "web-1-8", 1.0, 0.0, "nothing due"), long_ago)
        said = newcomer.types("opsjobs", "uninstall")[1].splitlines()[-1]
        assert re.fullmatch(
            "Error: refused: the process web-1-7 of the loops sent a heartbeat just now: stop "
            r"workers and loops and wait \d+ s, then run `flask opsjobs uninstall` again",
            said,
        )
        session.execute("DELETE FROM opsjobs.loop_runs")

    uninstall, upgrade = typed("Take it out")
    said = newcomer.does(*uninstall)
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
        code, said = alone.types(*upgrade, env={URL: url})
        assert code == 0, said
        with session_of(url) as session:
            is_gone, has_users, head = session.execute(STATE).fetchone()
        assert (is_gone, has_users) == (True, True)
        heads.add(head)
    assert len(heads) == 1
    assert "remove opsjobs" in alone.does("db", "heads", "--verbose")


def typed(heading: str) -> list[list[str]]:
    """The commands of a section of the page, without the word `flask`."""
    _, begin, text = PAGE.partition(f"\n## {heading}\n")
    assert begin, heading
    found = re.findall(r"^\$ flask (.+)$", text.partition("\n## ")[0], re.M)
    return [command.split() for command in found]


def has_schema(url: str) -> bool:
    with session_of(url) as session:
        found: bool = session.execute("SELECT to_regnamespace('opsjobs') IS NOT NULL").fetchone()[0]
        return found


def test_force_goes_on_and_loses_jobs_that_have_not_ended(
    installed: Newcomer, redis_client: Redis
) -> None:
    installed.env |= {"HOST_SECRET_KEY": "only for tests"}
    installed.adds(printed_lines(installed.does("opsjobs", "install")) + TASK)
    installed.runs(ENQUEUE)
    installed.does("opsjobs", "worker", "--burst")
    assert lasting(redis_client) == {b"rq:queues"}
    installed.runs(ENQUEUE)
    before = installed.files()
    assert "refused: 1 job is queued" in installed.types("opsjobs", "uninstall")[1]
    assert installed.files() == before
    force, clear, upgrade = typed("While jobs have not ended")
    assert "    opsjobs.jobs: 2 rows\n" in installed.does(*force)
    assert has_schema(installed.env[URL])
    assert lasting(redis_client) >= {b"rq:job:opsjobs-2-1", b"rq:queue:default"}
    installed.does(*clear)
    assert lasting(redis_client) == {b"rq:queues"}
    (installed.folder / "app.py").write_text(APP)
    installed.does(*upgrade)
    assert not has_schema(installed.env[URL])


def test_of_several_heads_with_our_revisions_one_must_be_named(installed: Newcomer) -> None:
    (ours,) = re.findall(r"^(\w+) \(head\)", installed.does("db", "heads"), re.M)
    installed.does("db", "revision", "-m", "bills", "--branch-label", "billing")
    (billing,) = re.findall(r"^(\w+) \(billing\)", installed.does("db", "heads"), re.M)
    installed.does(
        "db", "revision", "-m", "carts", "--head", ours, "--splice", "--branch-label", "carts"
    )
    before = installed.files()
    code, said = installed.types("opsjobs", "uninstall")
    assert code == 1, said
    assert "has 2 heads" in said
    assert re.search("`flask opsjobs uninstall --head (billing|carts)`", said)
    assert installed.files() == before
    uninstall, upgrade = typed("With several heads")
    assert "Then run `flask db upgrade heads`" in installed.does(*uninstall)
    (drop,) = (installed.folder / "migrations/versions").glob("*_remove_opsjobs.py")
    assert f"down_revision = '{billing}'" in drop.read_text()
    installed.does(*upgrade)
    assert not has_schema(installed.env[URL])


def test_with_several_binds_only_the_one_with_the_jobs_loses_its_schema(
    newcomer: Newcomer, others: list[str]
) -> None:
    ours, books = newcomer.env[URL], others[0]
    newcomer.env |= {
        URL: others[1],
        "HOST_SECRET_KEY": "only for tests",
        "HOST_SQLALCHEMY_BINDS": json.dumps({"work": ours, "books": books}),
        "HOST_OPSJOBS_BIND": "work",
    }
    newcomer.does("db", "init", "--multidb")
    newcomer.does("opsjobs", "install")
    newcomer.does("db", "upgrade")
    with session_of(books) as session:
        session.execute("CREATE SCHEMA opsjobs")  # somebody else's
    for command in typed("Take it out"):
        newcomer.does(*command)
    assert [has_schema(url) for url in (ours, books)] == [False, True]
    assert "flask_opsjobs" not in "".join(migrations(newcomer).values())


def test_the_page_says_first_what_would_be(installed: Newcomer) -> None:
    (installed.folder / ".#app.py").symlink_to("nowhere")  # as an editor locks a file
    before = installed.files()
    (dry,) = re.findall(r"^\$ flask (.+)$", PAGE.partition("\n## ")[0], re.M)
    said = installed.does(*dry.split())
    assert "would be a new file in migrations: a revision that drops the schema opsjobs" in said
    assert re.search(r"^would be migrations/env\.py: ", said, re.M)
    assert "This is lost when the new revision runs" in said
    assert installed.files() == before


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_who_does_not_read_what_is_lost_changes_nothing_and_gets_no_complaint(
    installed: Newcomer, words: tuple[str, ...]
) -> None:
    before = installed.files()
    assert installed.pipes_away("opsjobs", "uninstall", *words) == ""
    assert installed.files() == before


def test_a_folder_that_cannot_be_written(installed: Newcomer) -> None:
    """Not even root makes a file in /sys."""
    ini = installed.folder / "migrations/alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]", "[alembic]\nfile_template = /sys/%%(rev)s"))
    before = installed.files()
    code, said = installed.types("opsjobs", "uninstall")
    assert code == 1, said
    assert said.splitlines()[-1].startswith("Error: cannot write /sys/")
    assert said.endswith("then run `flask opsjobs uninstall` again\n")
    assert "Traceback" not in said
    assert installed.files() == before


def test_a_long_line_of_the_host_is_cut_around_what_names_us(installed: Newcomer) -> None:
    installed.adds(f"# begins {'opsjobs ' * 9_000}")
    installed.adds(f"# {'a' * 200} in the middle opsjobs {'b' * 200}")
    installed.adds(f"# {'a' * 200} ends opsjobs")
    said = installed.does("opsjobs", "uninstall", "--dry-run")
    shown = re.findall(r"^    app\.py:\d+: (.*(?:begins|middle|ends).*)$", said, re.M)
    assert ["opsjobs" in line for line in shown] == [True] * 3
    assert [len(line) for line in shown] == [110] * 3
    assert [line[0] + line[-1] for line in shown] == ["#…", "……", "…s"]


def test_a_full_disk(installed: Newcomer) -> None:
    env = installed.files()["migrations/env.py"]
    code, said = installed.types_on_full_disk(2_000, "opsjobs", "uninstall")
    assert code == 1, said
    assert re.fullmatch(r"Error: cannot write .*/env\.py: .*", said.splitlines()[-1])
    assert said.endswith("then run `flask opsjobs uninstall` again\n")
    assert installed.files()["migrations/env.py"] == env
    installed.does("opsjobs", "uninstall")
    assert "flask_opsjobs" not in "".join(migrations(installed).values())


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
