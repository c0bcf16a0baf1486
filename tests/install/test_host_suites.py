"""Suites of hosts, in an environment with the wheel and pytest and without this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.database import Databases
from tests.support.sources import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.slow]

APP = """
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    from flask_opsjobs import OpsJobs


    class AllowAll:
        def current_actor(self): return "me"
        def can(self, actor, permission, subject=None): return True


    class ShowAll:
        def is_hidden_key(self, key): return False
        def clean_text(self, text): return text


    db = SQLAlchemy()
    opsjobs = OpsJobs(access=AllowAll(), display=ShowAll())


    @opsjobs.task
    def pay(iban: str, cents: int = 0) -> None: ...


    def create_app(**config):
        app = Flask("shop")
        app.config.update(SECRET_KEY="only for tests", TESTING=True, **config)
        db.init_app(app)
        opsjobs.init_app(app)

        @app.post("/pay/<iban>")
        def ask(iban):
            pay.enqueue(iban, cents=990)
            db.session.commit()
            return "", 202

        return app
"""
# With pytest-flask, which has a `client` and pushes a context, and without migrations. The app is made for
# each test or once for all.
CONFTEST = """
    import pytest
    from flask_opsjobs.testing import create_schema, drop_schema
    from shop import create_app, db

    @pytest.fixture(scope="{scope}")
    def app(opsjobs_postgres, opsjobs_redis):
        app = create_app(SQLALCHEMY_DATABASE_URI=opsjobs_postgres, OPSJOBS_REDIS_URL=opsjobs_redis)
        with app.app_context():
            db.create_all()
            create_schema()
        yield app
        with app.app_context():
            db.session.remove()
            drop_schema()
            db.drop_all()
            db.engine.dispose()
"""
EACH_ITS_OWN = """
    import pytest
    from flask_opsjobs.testing import assert_enqueued, assert_no_leaks, refute_enqueued
    from shop import pay

    def test_wrong_arguments(client):
        client.post("/pay/DE02")
        assert_enqueued(pay, iban="DE03")

    def test_wrong_refusal(client):
        client.post("/pay/DE02")
        refute_enqueued(pay)

    def test_leak(client):
        client.post("/pay/DE02-canary-1")
        assert_no_leaks(client, ["DE02-canary-1"], most=3)

    def test_works(client, opsjobs_perform_due, opsjobs_as):
        opsjobs_as(None, [])
        assert client.get("/ops/jobs/").status_code == 403
        client.post("/pay/DE02")
        assert assert_enqueued(pay, cents=990).args["iban"] == "DE02"
        opsjobs_perform_due().assert_finished()

    @pytest.mark.parametrize(
        "state",
        [pytest.param("finished", marks=pytest.mark.opsjobs(inline=True)), "available"],
    )
    def test_inline(client, opsjobs_jobs, state):
        client.post("/pay/DE02")
        assert [job.state for job in opsjobs_jobs()] == [state]
"""
ALL_ONE = """
    from flask_opsjobs.testing import assert_enqueued, assert_no_leaks, perform, refute_enqueued
    from shop import pay

    def test_wrong_name(client):
        assert_enqueued("pays")

    def test_wrong_argument(client):
        refute_enqueued(pay, ibam="DE02")

    def test_every_page_is_refused(client, opsjobs_as):
        opsjobs_as("anna", [])
        assert_no_leaks(client, ["DE02-canary-1"], most=3)

    def test_wrong_permission(client, opsjobs_as):
        opsjobs_as("anna", ["job.views"])

    def test_wrong_type(app):
        perform(pay, iban="DE02", cents="many")

    def test_nothing_due(app, opsjobs_perform_due):
        opsjobs_perform_due().assert_finished()

    def test_uncommitted(app, opsjobs_perform_due):
        pay.enqueue("DE02")
        opsjobs_perform_due()

    def test_wrong_time(app, opsjobs_clock):
        opsjobs_clock.forward(fortnights=1)
"""


@dataclass
class Suite:
    """A folder in which `python -m pytest` runs as in a host's environment."""

    folder: Path
    python: str
    site: Path

    def has(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def runs(self, *words: str, **env: str) -> tuple[int, str]:
        """The exit code of pytest, and what it prints."""
        return self.types("-m", "pytest", "-q", *words, **env)

    def types(self, *words: str, **env: str) -> tuple[int, str]:
        """The exit code of `python words…`, and what it prints."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPSJOBS_", "PYTEST_"))
        }
        done = subprocess.run(
            [self.python, *words],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.site), "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            timeout=240,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def suite(tmp_path: Path, own_python: str, site: Path) -> Suite:
    return Suite(tmp_path, own_python, site)


@pytest.mark.slow(20)
def test_the_example_host_uses_each_fixture_in_its_own_suite(
    suite: Suite, databases: Databases, redis_url: str
) -> None:
    """With a transaction around each test, whole in each of two processes, on servers that are given."""
    shutil.copytree(ROOT / "examples/flask_host", suite.folder / "flask_host")
    tests = (suite.folder / "flask_host/tests").glob("*.py")
    text = "".join(path.read_text() for path in tests)
    plugin = (ROOT / "flask_opsjobs/testing/plugin.py").read_text()
    fixtures = {*re.findall(r"^def (opsjobs_\w+)", plugin, re.M)} - {"opsjobs_inline"}
    assert len(fixtures) == 7
    assert [name for name in fixtures if name not in text] == []
    for name in (
        "assert_enqueued(",
        "refute_enqueued(",
        "perform(",
        "assert_no_leaks(",
        "inline=True",
    ):
        assert name in text
    url = databases.empty()
    code, said = suite.runs(
        *("-n", "2", "--dist", "each", "flask_host/tests"),
        OPSJOBS_TEST_DATABASE_URL=url.render_as_string(hide_password=False),
        OPSJOBS_TEST_REDIS_URL=redis_url,
    )
    databases.drop(url)
    assert code == 0, said
    assert re.search(r"^14 passed", said, re.M), said


@pytest.mark.slow(20)
def test_each_fails_usefully(suite: Suite) -> None:
    """On servers from wheels, with pytest-flask, and with `db.create_all()`."""
    suite.has("shop.py", APP)
    for scope, text in (("function", EACH_ITS_OWN), ("session", ALL_ONE)):
        suite.has(f"{scope}/conftest.py", CONFTEST.format(scope=scope))
        suite.has(f"{scope}/test_{scope}.py", text)
    code, said = suite.runs("-p", "no:xdist", "--tb=short")
    assert code == 1, said
    assert re.search(r"^11 failed, 3 passed", said, re.M), said
    for sentence in (
        r"no job of the task pay has iban='DE03'; enqueued were:\s*\n"
        r"E\s+job \d+ of pay, available: iban='DE02', cents=990",
        r"AssertionError: enqueued were:\s*\nE\s+job \d+ of pay, available: iban='DE02', cents=990",
        r"this app declares no task 'pays'; did you mean pay\?",
        r"no argument ibam of the task pay is stored; those stored are: iban, cents",
        r"'DE02-canary-1' in /ops/jobs/jobs\S*, body: ",
        r"none of \d+ addresses showed a page to this client, so nothing was searched: sign it in",
        r"there is no permission 'job.views': did you mean jobs.view\?",
        r"InvalidArgs: task pay: cents: ",
        r"AssertionError: no job was due",
        r"the session has written and not committed: jobs would not see it",
        r"TypeError: 'fortnights' is an invalid keyword",
    ):
        assert re.search(sentence, said), (sentence, said)


def test_a_suite_that_does_not_use_us_starts_nothing(
    suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.has("test_own.py", "def test_it(): pass")
    code, said = suite.runs("--setup-show", "-p", "no:xdist")
    assert code == 0, said
    assert "opsjobs" not in said
    code, said = suite.runs("--fixtures", "-p", "no:xdist")
    assert "opsjobs_perform_due" in said
    lasted = min(_seconds_of_import(suite) for _ in range(5))
    with capsys.disabled():
        print(f"\nthe plugin costs a suite that does not use it {lasted * 1000:.1f} ms")
    assert lasted <= 0.020


def _seconds_of_import(suite: Suite) -> float:
    """The processor time that a process with pytest takes for importing the plugin."""
    script = (
        "import pytest, time; began = time.process_time(); import flask_opsjobs.testing.plugin, sys\n"
        "print(time.process_time() - began); assert 'sqlalchemy' not in sys.modules"
    )
    done = subprocess.run(
        [suite.python, "-c", script],
        env={**os.environ, "PYTHONPATH": str(suite.site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


MARKS = ("inline=1", "True", "eager=True", "")
EACH = """
import pytest
print([pytest.main(["-q", "-p", "no:xdist", f"test_{number}.py"]) != 0 for number in range(4)])
"""


def test_a_wrong_marker_is_refused(suite: Suite) -> None:
    for number, mark in enumerate(MARKS):
        own = f"import pytest\n@pytest.mark.opsjobs({mark})\ndef test_it(): pass"
        suite.has(f"test_{number}.py", own)
    said = suite.types("-c", EACH)[1]
    assert str([True] * len(MARKS)) in said.splitlines(), said
    for number in range(len(MARKS)):
        refused = "test_it: the marker opsjobs takes inline=True, and nothing else"
        assert f"test_{number}.py::{refused}" in said
