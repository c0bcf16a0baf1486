"""Lists the test lanes: on which interpreters, libraries and servers the tests marked `lane` run.

`make lane LANE=name` runs one, `make lanes` all. What came of them is in `docs/lanes.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/lanes.toml"


@dataclass(frozen=True)
class Lane:
    """One set of versions. What it does not name is the newest, on the Python of `make`."""

    name: str
    what: str
    # Versions that a test must find, each as it begins: {"postgresql": "15"}.
    expects: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    python: str = ""
    # Packages of PyPI at the lowest version that pyproject.toml allows; `*` is all of them.
    lowest: tuple[str, ...] = ()
    # Packages of PyPI that only this lane needs.
    pypi: tuple[str, ...] = ()
    # Packages of Debian, and what of them the tests use: a folder of programs, and a server.
    debian: tuple[str, ...] = ()
    postgresql: str = ""
    redis: str = ""
    # Further words for pytest, and the only files with its tests.
    options: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


def lane_files(root: Path) -> list[str]:
    """The files with tests that are marked `lane`: others may need what their environment does not have."""
    files = sorted((root / "tests").rglob("test_*.py"))
    return [str(file.relative_to(root)) for file in files if "mark.lane" in file.read_text()]


def _python(version: str) -> Lane:
    return Lane(f"python-{version}", f"Python {version}", {"python": version}, python=version)


def _postgresql(version: str) -> Lane:
    return Lane(
        f"postgres-{version}",
        f"PostgreSQL {version}, of Debian",
        {"postgresql": version},
        debian=(f"postgresql-{version}",),
        postgresql=f"/usr/lib/postgresql/{version}/bin",
    )


def _redis(name: str, package: str, version: str) -> Lane:
    expects = {name.lower(): version}
    lane = f"{name.lower()}-{version}"
    return Lane(lane, f"{name} {version}, of Debian", expects, debian=(package,), redis=package)


LANES = {
    lane.name: lane
    for lane in (
        Lane(
            "newest",
            "the newest of everything, with the embedded servers",
            {"postgresql": "18", "valkey": "9", "rq": "3."},
            options=("--variants",),
        ),
        Lane(
            "lowest",
            "Python 3.11, and the lowest version of every dependency",
            {"python": "3.11"},
            python="3.11",
            lowest=("*",),
        ),
        Lane("rq-lowest", "the lowest RQ, beside the newest of the rest", lowest=("rq",)),
        _python("3.11"),
        _python("3.12"),
        _python("3.13"),
        _python("3.14"),
        _postgresql("15"),
        _postgresql("17"),
        _redis("Valkey", "valkey-server", "8"),
        _redis("Redis", "redis-server", "8"),
        Lane(
            "pgbouncer",
            "PgBouncer in transaction mode, of Debian",
            debian=("pgbouncer",),
            options=("--pgbouncer", "prepared"),
        ),
        Lane(
            "gunicorn",
            "gunicorn with sync workers and with threads, behind nginx, of Debian, with a prefix",
            pypi=("gunicorn",),
            debian=("nginx",),
            options=("--web-servers",),
            tests=("tests/tools/test_lanes.py", "tests/host/test_web_servers.py"),
        ),
    )
}
