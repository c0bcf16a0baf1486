"""Runs what was built: twine, pinned steps of the schema, tests of the sdist, a journey without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flask_opsjobs.testing.postgres import TemporaryPostgres
from tools.lanes import lane_files
from tools.lanes.floors import EXTRAS

from .step import NotRun, Release

_PINNED = "tests/test_migrations.py"
JOURNEY = Path(__file__).with_name("journey.py")
# The journey signs in, and brings its own Valkey.
_NEEDS = ("flask-login",)
_EXTRAS = "binary,testing"
# The last lines of an output say what went wrong.
_LINES = 25


def twine_faults(release: Release) -> Iterator[str]:
    """What `twine check --strict` says against the wheel and the sdist."""
    yield from _fault(
        [sys.executable, "-m", "twine", "check", "--strict", release.wheel, release.sdist]
    )


def pinned_faults(release: Release) -> Iterator[str]:
    """Which steps of the schema are not what their pinned hashes say."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", _PINNED, "-k", "never_changes"]
    yield from _fault(words, folder=release.root)


def sdist_faults(release: Release) -> Iterator[str]:
    """Whether the sdist, unpacked alone and installed, passes its tests that are marked `lane`."""
    with _folder() as folder:
        with tarfile.open(release.sdist) as sdist:
            sdist.extractall(folder, filter="data")
        (unpacked,) = folder.iterdir()
        python = _environment(folder, f"{unpacked}[{','.join(EXTRAS)}]")
        yield from own_test_faults(python, unpacked)


def own_test_faults(python: Path, unpacked: Path) -> Iterator[str]:
    """How the tests of an unpacked sdist that are marked `lane` fail."""
    words = [python, "-m", "pytest", "-q", "-m", "lane", "-n", "4", "--dist", "worksteal"]
    yield from _fault([*words, *lane_files(unpacked)], folder=unpacked)


def journey_faults(release: Release) -> Iterator[str]:
    """What stops somebody with the wheel, in an empty folder without network. Raises `NotRun`."""
    with _folder() as folder, TemporaryPostgres() as server:
        python = _environment(folder, f"{release.wheel}[{_EXTRAS}]", *_NEEDS)
        empty = folder / "empty"
        empty.mkdir()
        url = server.url().render_as_string(hide_password=False)
        yield from offline_faults([python, JOURNEY, url], empty)


def offline_faults(words: Sequence[object], folder: Path) -> Iterator[str]:
    """How a command fails that has the loopback only. Raises `NotRun` where Linux does not allow that."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or _output([*apart, "true"]).returncode:
        raise NotRun("this machine allows no network namespace: unshare -rn is refused")
    yield from _fault([*apart, *words], folder=folder)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="opsjobs-release-") as folder:
        yield Path(folder)


def _environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment with these packages, and nothing of this checkout."""
    uv, place = Path(sys.executable).with_name("uv"), folder / "venv"
    make = [uv, "venv", "--quiet", "--seed", "--python", sys.executable, place]
    python = place / "bin/python"
    for words in (make, [uv, "pip", "install", "--quiet", "--python", python, *packages]):
        done = _output(words)
        if done.returncode:
            raise NotRun(f"an environment cannot be made: {_last(done.stdout)}")
    return python


def _fault(words: Sequence[object], folder: Path | None = None) -> Iterator[str]:
    """The last lines of a command that fails."""
    done = _output(words, folder)
    if done.returncode:
        yield f"{' '.join(map(str, words[:6]))} … ended with {done.returncode}:\n{_last(done.stdout)}"


def _output(
    words: Sequence[object], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _last(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-_LINES:])
