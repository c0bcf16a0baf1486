"""Each app that cannot be installed into gets one sentence with what to type next, and no file."""

from __future__ import annotations

import re

import pytest

from .conftest import APP, Newcomer

pytestmark = pytest.mark.slow

LITE = """\
from flask import Flask
from flask_sqlalchemy_lite import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_ENGINES"] = {"default": "postgresql+psycopg://nobody@127.0.0.1:1/nothing"}
db = SQLAlchemy(app)
"""
JOINED = f"""{APP}
from flask_opsjobs import OpsJobs
OpsJobs(app)
"""
URL = "HOST_SQLALCHEMY_DATABASE_URI"
NOWHERE = "://nobody@127.0.0.1:1/nothing"


@pytest.mark.parametrize(
    ("source", "env", "sentence", "command"),
    [
        (APP, {URL: "null"}, "SQLALCHEMY_DATABASE_URI", "flask opsjobs install"),
        (APP, {URL: "sqlite://"}, "this app's database is sqlite", "flask opsjobs install"),
        (
            APP,
            {URL: f"postgresql+psycopg2{NOWHERE}"},
            "Write the URL of the database as postgresql+psycopg://…",
            "flask opsjobs install",
        ),
        (
            APP,
            {URL: f"postgresql+psycopg_async{NOWHERE}"},
            "is postgresql through psycopg, asynchronous: write its URL as postgresql+psycopg://…",
            "flask opsjobs install",
        ),
        (LITE, {}, "this app has flask_sqlalchemy_lite", "pip install flask-sqlalchemy"),
        (
            APP.replace("migrate = Migrate", "unused = Migrate and (lambda *_, **__: 0)"),
            {},
            "this app has no Flask-Migrate: add `Migrate(app, db)`",
            "flask db init",
        ),
        (APP, {}, "there is no Flask-Migrate directory at ", "flask db init"),
        (
            JOINED,
            {},
            "SECRET_KEY is not set",
            "python -c 'import secrets; print(secrets.token_hex())'",
        ),
        (
            f"import shop_settings_of_nobody\n{APP}",
            {},
            "ModuleNotFoundError: No module named 'shop_settings_of_nobody'",
            "flask routes",
        ),
        (
            f"{APP}from opsjobs_access import HostAccess\n",
            {},
            "writes this file: leave the lines about OpsJobs out until then",
            "flask opsjobs install",
        ),
        (f"{APP}raise KeyError('MAIL_SERVER')", {}, "KeyError: 'MAIL_SERVER'", "flask routes"),
        ("", {}, "Failed to find Flask application", "flask --app shop opsjobs install"),
    ],
)
def test_it_refuses_in_one_sentence(
    source: str, env: dict[str, str], sentence: str, command: str, newcomer: Newcomer
) -> None:
    (newcomer.folder / "app.py").write_text(source)
    before = newcomer.files()
    code, said = newcomer.types("opsjobs", "install", env=env)
    assert code == 1, said
    assert re.fullmatch(r"Error: [^\n]+\n", said), said
    assert sentence in said
    assert command in said
    assert newcomer.files() == before


def test_a_folder_that_cannot_be_written(newcomer: Newcomer) -> None:
    """Not even root makes a file in /sys."""
    newcomer.does("db", "init")
    source = APP.replace("Flask(__name__)", 'Flask(__name__, root_path="/sys")')
    (newcomer.folder / "app.py").write_text(source)
    code, said = newcomer.types("opsjobs", "install")
    assert code == 1, said
    assert said.splitlines()[-1].startswith("Error: cannot write /sys/opsjobs_access.py: ")
    assert said.endswith("then run `flask opsjobs install` again\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("free_bytes", "named", "revisions"), [(400, "a new revision", 0), (2_000, "env.py", 1)]
)
def test_a_full_disk(free_bytes: int, named: str, revisions: int, newcomer: Newcomer) -> None:
    """No file is left in part."""
    newcomer.does("db", "init")
    (newcomer.folder / "app.py").write_text(APP)
    env = newcomer.files()["migrations/env.py"]
    code, said = newcomer.types_on_full_disk(free_bytes, "opsjobs", "install")
    assert code == 1, said
    assert re.fullmatch(f"Error: cannot write .*{named}: .*", said.splitlines()[-1])
    assert said.endswith("then run `flask opsjobs install` again\n")
    assert newcomer.files()["migrations/env.py"] == env
    assert sum("versions" in name for name in newcomer.files()) == revisions
    newcomer.does("opsjobs", "install")
    newcomer.does("db", "upgrade")


def test_a_server_that_is_too_old(newcomer: Newcomer) -> None:
    """The newest server, as seen by a release that needs a newer one: no older one is at hand."""
    newcomer.does("db", "init")
    newcomer.adds("from flask_opsjobs.install import database\ndatabase.OLDEST_POSTGRES = 990_000")
    newcomer.does("opsjobs", "install")
    sentence = "is too old, flask_opsjobs needs 99 or newer: upgrade the server, then run `flask db upgrade`"
    code, said = newcomer.types("db", "upgrade")
    assert code != 0
    assert sentence in said.splitlines()[-1]
    assert "Traceback" not in said
    code, said = newcomer.types("opsjobs", "install", "--check")
    assert (code, sentence in said) == (1, True)


def test_a_revision_of_a_newer_release(newcomer: Newcomer) -> None:
    """The package was taken back to an older release, and the migrations were not."""
    newcomer.does("db", "init")
    newcomer.does("opsjobs", "install")
    [revision] = (newcomer.folder / "migrations/versions").glob("*.py")
    revision.write_text(re.sub(r"\bto=\d+", "to=99", revision.read_text()))
    code, said = newcomer.types("db", "upgrade")
    assert code == 1, said
    assert "install the release that wrote this revision, or a newer one" in said.splitlines()[-1]
    assert "Traceback" not in said
