"""A person with a small Flask app and our wheel, who types commands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.database import Databases
from tests.support.once import made_once
from tests.support.processes import Child
from tests.support.sources import ROOT

APP = """\
import json
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.from_prefixed_env("HOST")
db = SQLAlchemy(app)
migrate = Migrate(app, db, **json.loads(os.environ.get("MIGRATE", "{}")))


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)


"""


@dataclass
class Newcomer:
    """A folder with an app.py, in which commands run as their user types them.

    While it `is_warm`, each command finds the installed wheel and the libraries imported, but not the app.
    """

    folder: Path
    env: dict[str, str]
    is_warm: bool = True
    python: str = sys.executable

    def types(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """The exit code of `flask words…`, and everything it printed."""
        return self._python("-m", "flask", *words, env=env)

    def types_on_full_disk(self, free_bytes: int, *words: str) -> tuple[int, str]:
        """As `types`, where no file may become larger than this."""
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({free_bytes}, {free_bytes}))"
        # Python itself would leave compiled modules in part, and could not read them later.
        return self._after(f"import resource; sys.dont_write_bytecode = True; {limit}", *words)

    def types_and_is_killed(self, *words: str) -> tuple[int, str]:
        """As `types`, until a new file shall take the place of the old one: there the command is killed."""
        kill = "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
        return self._after(f"import os, signal; from pathlib import Path; {kill}", *words)

    def _after(self, script: str, *words: str) -> tuple[int, str]:
        """As `types`, after a line of Python."""
        run = f"sys.argv = {['flask', *words]}; runpy.run_module('flask', run_name='__main__')"
        return self._python("-c", f"import runpy, sys; {script}; {run}")

    def does(self, *words: str) -> str:
        """What `flask words…` prints; fails the test when it fails."""
        code, said = self.types(*words)
        assert code == 0, said
        return said

    def pipes_away(self, *words: str) -> str:
        """What `flask words…` says on stderr when its output goes into a pipe that nobody reads."""
        flask = shlex.join([sys.executable, "-m", "flask", *words])
        done = subprocess.run(
            ["sh", "-c", f"{flask} 2>stderr | true; cat stderr; rm stderr"],
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout

    def runs(self, script: str) -> str:
        """What a Python script prints; fails the test when it fails."""
        code, said = self._python("-c", script)
        assert code == 0, said
        return said

    def _python(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        with tempfile.NamedTemporaryFile(prefix="said-") as log:
            child = Child(
                [self.python, *words],
                Path(log.name),
                {**self.env, **(env or {})},
                warm=self.env["PYTHONPATH"] if self.is_warm else None,
                folder=self.folder,
            )
            try:
                return child.wait(60), child.log
            finally:
                child.kill_all()

    def adds(self, lines: str) -> None:
        """Append lines to app.py."""
        with (self.folder / "app.py").open("a") as file:
            file.write(lines + "\n")

    def files(self) -> dict[str, str]:
        """Every file of the folder with its text, but for what Python compiled."""
        return {
            str(path.relative_to(self.folder)): path.read_text()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix != ".pyc"
        }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our wheel installed in it, entry points and all."""
    return made_once(tmp_path_factory, "site", _install)


def _install(folder: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(ROOT)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def own_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python of its own, with all libraries of this one, and without flask_opsjobs and this checkout."""
    return str(made_once(tmp_path_factory, "environment", _make_environment) / "bin/python")


def _make_environment(folder: Path) -> None:
    venv.create(folder, symlinks=True)
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "opsjobs" not in path.name and path.suffix != ".pth":
            (site / path.name).symlink_to(path)


def move_in(folder: Path, site: Path, url: str, redis_url: str) -> Newcomer:
    """Somebody in `folder`, who has only just installed the wheel."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    env = {
        "PYTHONPATH": str(site),
        "HOST_SQLALCHEMY_DATABASE_URI": url,
        "HOST_OPSJOBS_REDIS_URL": redis_url,
    }
    return Newcomer(folder, env)


@pytest.fixture
def newcomer(tmp_path: Path, site: Path, empty_database_url: str, redis_url: str) -> Newcomer:
    """Somebody with an app on an empty database."""
    return move_in(tmp_path / "shop", site, empty_database_url, redis_url)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    """A migrations directory and what the installer wrote, made once: neither asks the database."""
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    someone = move_in(tmp_path_factory.mktemp("written"), site, nowhere, "redis://127.0.0.1:1")
    someone.does("db", "init")
    someone.does("opsjobs", "install")
    return someone.folder


@pytest.fixture(scope="session")
def upgraded(written: Path, site: Path, databases: Databases) -> Iterator[URL]:
    """A database that `flask db upgrade` has brought up, once."""
    url = databases.empty()
    text = url.render_as_string(hide_password=False)
    move_in(written, site, text, "redis://127.0.0.1:1").does("db", "upgrade")
    yield url
    databases.drop(url)


@pytest.fixture
def installed(
    tmp_path: Path, site: Path, written: Path, upgraded: URL, databases: Databases, redis_url: str
) -> Iterator[Newcomer]:
    """Somebody who has run the installer and upgraded the database, and not yet joined the app."""
    url = databases.copy(upgraded)
    folder = tmp_path / "shop"
    shutil.copytree(written, folder)
    yield move_in(folder, site, url.render_as_string(hide_password=False), redis_url)
    databases.drop(url)
