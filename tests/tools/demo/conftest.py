"""The example host, which the demo runs, on the test's database and Redis; and a demo with its history."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import app, db, shop, visitor  # noqa: F401 - fixtures
from tests.support.once import made_once
from tests.support.processes import Child

# What `make demo` does before it starts its processes.
_PREPARE = """
import sys
from pathlib import Path
from flask_opsjobs.processes.supervisor import Supervisor
from tools.demo.folder import claimed, hash_steps
from tools.demo.run import MIGRATIONS, SETTINGS, prepare
from tools.demo.servers import running_servers
steps = hash_steps(MIGRATIONS)
with claimed(Path(sys.argv[1])) as folder, running_servers(folder, steps) as servers:
    prepare(folder, steps, {**SETTINGS, **servers.env}, Supervisor())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a demo may keep things: not below pytest's own folder, which each run closes to others."""
    with tempfile.TemporaryDirectory(prefix="opd-") as place:
        yield Path(place)


@pytest.fixture(scope="session")
def _history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "history", _write_history)


def _write_history(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="opd-") as place:
        command = [sys.executable, "-c", _PREPARE, f"{place}/data"]
        child = Child(command, Path(place) / "log", {}, warm="app")
        assert child.wait(240) == 0, child.log
        _copy(Path(place) / "data", folder)


@pytest.fixture
def lived(_history: Path, place: Path) -> Path:
    """The data of a demo that has its history, and whose processes have not run yet."""
    _copy(_history, place / "data")
    return place / "data"


def _copy(data: Path, to: Path) -> None:
    # Keeps the owner: PostgreSQL does not run as root.
    subprocess.run(["cp", "-aT", data, to], check=True)
