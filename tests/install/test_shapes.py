"""The shapes of a host, each typed as a person types it, with what the installer prints and nothing else."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from .conftest import APP, Newcomer

pytestmark = [pytest.mark.slow(30), pytest.mark.processes]

URL = "HOST_SQLALCHEMY_DATABASE_URI"
ONE_FILE = APP.partition("class User")[0]
FACTORY = """\
import json
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env("HOST")
    db.init_app(app)
    Migrate(app, db, **json.loads(os.environ.get("MIGRATE", "{}")))
    return app
"""
BEHIND_A_PROXY = f"""\
{ONE_FILE}
from flask import request
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)
CSRFProtect(app)


@app.after_request
def add_own_headers(response):
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'")
    return response


@app.context_processor
def give_clashing_names():
    return dict.fromkeys(["job", "queue", "page", "rows", "title", "nav"], "the host's own")


class Job(db.Model):
    __tablename__ = "jobs"
    id = db.Column(db.Integer, primary_key=True)


"""
# A person fills in the starter: everybody may look.
FILLED_IN = (("        return None\n", "        return 'me'\n"), ("return False", "return True"))
TASK = """

@opsjobs.task
def greet(name: str) -> str:
    return f"hello {name}"
"""
ENQUEUE = """
import sys
sys.path.insert(0, "src")
import {package} as host
app = getattr(host, "app", None) or host.create_app()
with app.app_context():
    host.greet.enqueue("you")
    host.db.session.commit()
"""
VISIT = """
import sys
sys.path.insert(0, "src")
import {package} as host
app = getattr(host, "app", None) or host.create_app()
address = "/ops/jobs/jobs?state=finished"
page = app.test_client().get(address, headers={{"X-Forwarded-Prefix": "{prefix}"}})
print(page.status_code, '"{prefix}/ops/jobs/jobs/1' in page.text)
print(page.headers["Content-Security-Policy"])
"""


@dataclass(frozen=True)
class Shape:
    """How a host is laid out: its source and where that is, what its person types first, its environment."""

    source: str = ONE_FILE
    file: str = "app.py"
    package: str = "app"
    env: dict[str, str] = field(default_factory=dict)
    first: tuple[str, ...] = ("db init",)
    install: str = "opsjobs install"
    upgrade: str = "db upgrade"
    prefix: str = ""


BRANCHES = ("db init", "db revision -m base", "db revision -m one --branch-label billing")
TWO_HEADS = (*BRANCHES, "db revision -m two --head base --splice --branch-label shop")
SHAPES = {
    "a package with a factory, below src": Shape(
        source=FACTORY,
        file="src/shop/__init__.py",
        package="shop",
        env={"FLASK_APP": "src/shop"},
    ),
    "migrations in another directory": Shape(
        env={"MIGRATE": json.dumps({"directory": "db/our migrations"})}
    ),
    "two heads, then merged": Shape(
        first=(*TWO_HEADS, "db merge heads -m together"),
    ),
    "branch labels": Shape(
        first=TWO_HEADS, install="opsjobs install --head billing", upgrade="db upgrade heads"
    ),
    "several binds": Shape(
        env={"HOST_OPSJOBS_BIND": "work", "HOST_SQLALCHEMY_BINDS": "…"},
        first=("db init --multidb",),
    ),
    "a prefix behind a proxy": Shape(
        source=BEHIND_A_PROXY,
        prefix="/behind",
        first=("db init", "db migrate -m jobs", "db upgrade"),
    ),
    "migrations under another role": Shape(env={"HOST_OPSJOBS_APP_ROLE": "…"}),
}


@pytest.fixture
def role(newcomer: Newcomer) -> Iterator[Callable[[], str]]:
    """Makes a role that may connect and owns nothing, and gives the URL with which the app connects as it."""
    url = make_url(newcomer.env[URL])
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    name = f"app_{uuid4().hex[:8]}"
    made = False

    def make() -> str:
        nonlocal made
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of-the-app'")
            # Migrations write this table of Alembic's; the app reads it.
            session.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {name}")
        made = True
        mine = url.set(username=name, password="of-the-app")
        return mine.render_as_string(hide_password=False)

    yield make
    if made:
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(f"DROP OWNED BY {name}")
            session.execute(f"DROP ROLE {name}")


def join(path: Path, said: str, file: str) -> None:
    """Paste each group of printed lines, as it is, into the place that is printed with it."""
    source = path.read_text()
    groups = dict(re.findall(r"^Add to (.*):\n\n((?:(?:    .*)?\n)+?)\n*(?=\S)", said, re.M))
    if "def create_app" not in source:
        assert list(groups) == [file]
        path.write_text(f"{source}{textwrap.dedent(groups[file])}{TASK}")
        return
    top, inside = f"the top of {file}, after its imports", f"{file}, right after `db.init_app(app)`"
    assert list(groups) == [top, inside]
    above, below = source.split("\n\n\ndef create_app")
    imports, rest = above.split("\n\ndb = ")
    below = below.replace("db.init_app(app)\n", f"db.init_app(app)\n{groups[inside]}")
    lines = f"{imports}\n{textwrap.dedent(groups[top])}\ndb = {rest}"
    path.write_text(f"{lines}{TASK}\n\ndef create_app{below}")


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape(name: str, newcomer: Newcomer, role: Callable[[], str]) -> None:
    shape = SHAPES[name]
    ours = newcomer.env[URL]
    newcomer.folder = newcomer.folder.with_name("my shop")  # a path with a space, for all of them
    path = newcomer.folder / shape.file
    path.parent.mkdir(parents=True)
    path.write_text(shape.source)
    newcomer.env |= shape.env
    if "HOST_OPSJOBS_BIND" in shape.env:
        other = f"sqlite:///{newcomer.folder.with_name('other.db')}"
        newcomer.env |= {URL: other, "HOST_SQLALCHEMY_BINDS": json.dumps({"work": ours})}
    app_url = newcomer.env[URL]
    if "HOST_OPSJOBS_APP_ROLE" in shape.env:
        app_url = role()
        newcomer.env["HOST_OPSJOBS_APP_ROLE"] = make_url(app_url).username or ""

    for words in shape.first:
        newcomer.does(*words.split())
    said = newcomer.does(*shape.install.split())
    assert len(re.findall(r"^written  ", said, re.M)) == 4, said
    access = path.parent / "opsjobs_access.py"
    for before, after in FILLED_IN:
        source = access.read_text()
        assert before in source
        access.write_text(source.replace(before, after))
    join(path, said, shape.file)
    newcomer.does(*shape.upgrade.split())

    as_app = {URL: app_url}
    assert newcomer.types("opsjobs", "install", "--check", env=as_app)[0] == 0
    files = newcomer.files()
    newcomer.does(*shape.install.split())
    assert newcomer.files() == files
    if shape.upgrade == "db upgrade":  # with several heads alembic asks for one of them
        assert "No changes in schema detected" in newcomer.does("db", "migrate")
    newcomer.env |= as_app
    newcomer.runs(ENQUEUE.format(package=shape.package))
    newcomer.does("opsjobs", "worker", "--burst")
    visit = newcomer.runs(VISIT.format(package=shape.package, prefix=shape.prefix))
    assert visit.splitlines()[0] == "200 True"
    assert "default-src 'self'" in visit.splitlines()[1]  # ours, also where the host has its own
