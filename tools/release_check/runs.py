"""Runs what was built: twine, pinned steps, a journey without network, tests of the sdist."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flask_opsjobs.testing.postgres import TemporaryPostgres
from tools.lanes import lane_files
from tools.lanes.environment import CannotInstall, NotThere, make_environment
from tools.lanes.floors import EXTRAS

from .archives import lacking_faults
from .commands import command_faults, output
from .step import Failed, NotRun, Release

_PINNED = "tests/test_migrations.py"
JOURNEY = Path(__file__).with_name("journey.py")
# The journey signs in, and brings its own Valkey.
_NEEDS = ("flask-login",)
_EXTRAS = "binary,testing"


def twine_faults(release: Release) -> Iterator[str]:
    """What `twine check --strict` says against the wheel and the sdist."""
    yield from command_faults(
        [sys.executable, "-m", "twine", "check", "--strict", release.wheel, release.sdist]
    )


def pinned_faults(release: Release) -> Iterator[str]:
    """Which steps of the schema are not what their pinned hashes say."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", _PINNED, "-k", "never_changes"]
    yield from command_faults(words, folder=release.root)


def sdist_faults(release: Release) -> Iterator[str]:
    """What the sdist lacks, or how its tests marked `lane` fail when it is unpacked alone and installed.

    Raises `NotRun` and `Failed`.
    """
    if lacking := list(lacking_faults(release)):
        yield from lacking
        return
    with _folder() as folder:
        with tarfile.open(release.sdist) as sdist:
            sdist.extractall(folder, filter="data")
        (unpacked,) = folder.iterdir()
        python = _environment(folder, f"{unpacked}[{','.join(EXTRAS)}]")
        yield from own_test_faults(python, unpacked)


def own_test_faults(python: Path, unpacked: Path) -> Iterator[str]:
    """How the tests of an unpacked sdist that are marked `lane` fail."""
    words = [python, "-m", "pytest", "-q", "-m", "lane", "-n", "4", "--dist", "worksteal"]
    yield from command_faults([*words, *lane_files(unpacked)], folder=unpacked)


def journey_faults(release: Release) -> Iterator[str]:
    """What stops somebody with the wheel, in an empty folder without network.

    Raises `NotRun` and `Failed`.
    """
    with _folder() as folder:
        python = _environment(folder, f"{release.wheel}[{_EXTRAS}]", *_NEEDS)
        empty = folder / "empty"
        empty.mkdir()
        with TemporaryPostgres() as server:
            url = server.url().render_as_string(hide_password=False)
            yield from offline_faults([python, JOURNEY, url], empty)


def offline_faults(words: Sequence[object], folder: Path) -> Iterator[str]:
    """How a command fails that has the loopback only. Raises `NotRun` where Linux does not allow that."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or output([*apart, "true"]).returncode:
        raise NotRun("this machine allows no network namespace: unshare -rn is refused")
    yield from command_faults([*apart, *words], folder=folder)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="opsjobs-release-") as folder:
        yield Path(folder)


def _environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment with these packages, and nothing of this checkout."""
    try:
        return make_environment(folder / "venv", sys.executable, packages)
    except NotThere as why:
        raise NotRun(str(why)) from why
    except CannotInstall as why:
        raise Failed(str(why)) from why
