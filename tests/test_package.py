"""The wheel, installed alone: what a checkout hides, such as a folder that did not come along, shows here."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.sources import ROOT, files

# Run by the wheel's own interpreter: says where it found the package, asks for a page and for a file.
VISIT = """
import sys
from pathlib import Path

import flask_opsjobs
from flask import Flask
from flask_opsjobs import OpsJobs
from flask_sqlalchemy import SQLAlchemy

assert Path(flask_opsjobs.__file__).is_relative_to(sys.argv[1]), flask_opsjobs.__file__


class Policies:
    def current_actor(self): return "tester"
    def can(self, actor, permission, subject=None): return True
    def is_hidden_key(self, key): return False
    def clean_text(self, text): return text


app = Flask("host")
app.config.update(
    SECRET_KEY="only for tests",
    SQLALCHEMY_DATABASE_URI=sys.argv[2],
    OPSJOBS_REDIS_URL=sys.argv[3],
)
SQLAlchemy(app)
OpsJobs(app, access=Policies(), display=Policies())

from alembic.migration import MigrationContext
from alembic.operations import Operations
from flask_opsjobs.install import steps

with app.extensions["opsjobs"].engine.begin() as connection:
    steps.upgrade(Operations(MigrationContext.configure(connection)), steps.latest())

client = app.test_client()
page = client.get("/ops/jobs/", follow_redirects=True)
assert page.status_code == 200, (page.status_code, page.text)
assert "<title>" in page.text, page.text
for kind in ("opsjobs.css", "opsjobs.js"):
    asset = next(word for word in page.text.split('"') if kind in word)
    assert client.get(asset).status_code == 200, asset
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` builds it, into a temporary folder."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    _run([*build, str(ROOT)])
    return next(folder.glob("*.whl"))


def _run(command: list[str], **more: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command[:6])} …\n{done.stdout}\n{done.stderr}"


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(ROOT)) for path in _shipped("flask_opsjobs")}
    for folder in ("templates", "static", "migrations"):
        wanted |= {f"flask_opsjobs/{path.relative_to(ROOT)}" for path in _shipped(folder)}
    assert sorted(wanted - packed) == []
    assert [
        name for name in packed if name.startswith(("tests/", "tools/", "docs/", "examples/"))
    ] == []


def _shipped(folder: str) -> list[Path]:
    return [path for path in files(folder, "*") if path.is_file() and path.suffix != ".pyc"]


@pytest.mark.slow
def test_the_wheel_alone_opens_a_page(
    wheel: Path, tmp_path: Path, empty_database_url: str, redis_url: str
) -> None:
    venv = tmp_path / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    here = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*pip, "--target", str(here), str(wheel)])
    # What it depends on is borrowed from this environment, without the editable install's path.
    (here / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = tmp_path / "visit.py"
    script.write_text(VISIT)
    _run(
        [str(venv / "bin/python"), str(script), str(venv), empty_database_url, redis_url],
        cwd=tmp_path,
    )
