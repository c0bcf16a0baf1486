"""Makes what a lane needs: its Python with the packages, and its servers. What cannot be had is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flask_opsjobs.testing.postgres import Postgres

from . import ROOT, Lane
from .floors import EXTRAS, constraints

FOLDER = ROOT / ".lanes"
# For data that nobody keeps, and for test processes that connect at once.
_SETTINGS = {"max_connections": "200", "fsync": "off", "full_page_writes": "off"}
# What uv says when PyPI cannot be reached.
_NO_NETWORK = ("Failed to fetch", "error sending request", "dns error")


class NotThere(Exception):
    """What a lane needs is not on this machine, and cannot be installed. The lane is not run."""


class NoInterpreter(NotThere):
    """This Python is not on the machine, and no lane installs one."""


class CannotInstall(Exception):
    """The packages of a lane do not go together, or one of them cannot be built: the lane has failed."""


@contextmanager
def prepared(lane: Lane) -> Iterator[tuple[Path, dict[str, str]]]:
    """The Python of a lane, and the variables that lead tests to its servers.

    Raises `NotThere` and `CannotInstall`.
    """
    python = find_python(lane.python)
    _install_from_debian(lane.debian)
    with ExitStack() as stack:
        env = {"OPSJOBS_LANE": lane.name}
        if lane.postgresql:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opl-")))
            server = Postgres(folder, settings=_SETTINGS, programs=Path(lane.postgresql))
            url = stack.enter_context(server).url()
            env["OPSJOBS_TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)
        if lane.redis:
            env["OPSJOBS_TEST_REDIS_PROGRAM"] = f"/usr/bin/{lane.redis}"
        yield _make_environment(lane, python), env


def find_python(version: str) -> str:
    """An interpreter of this version, on the path or of pyenv; that of `make` for no version.

    Raises `NoInterpreter`.
    """
    if not version or sys.version.startswith(f"{version}."):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    for found in [*map(str, pyenv.glob(f"{version}.*/bin/python")), on_path or ""]:
        # A shim of pyenv may be on the path without an interpreter behind it.
        if found and _run([found, "--version"]).stdout.startswith(f"Python {version}."):
            return found
    raise NoInterpreter(f"no Python {version} on this machine")


def debian_version(package: str) -> str:
    """The installed version of a package of Debian; nothing when it is not installed."""
    if shutil.which("dpkg-query") is None:
        return ""
    words = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Version}", package]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return said[3:] if said.startswith("ii") else ""


def _install_from_debian(packages: Sequence[str]) -> None:
    missing = [package for package in packages if not debian_version(package)]
    if not missing:
        return
    words = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None:
        raise NotThere(f"no Debian, from which {', '.join(missing)} comes")
    if os.geteuid() != 0:
        raise NotThere(f"not installed: run, as root, {' '.join(words)}")
    # The runlevel of a machine that boots or ends: Debian then starts no server that it installs.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = _run(words, env=env)
    if done.returncode:
        _run(["apt-get", "update"], env=env)
        done = _run(words, env=env)
    if done.returncode:
        raise NotThere(f"{' '.join(words)}: {_last_line(done.stdout)}")


def _make_environment(lane: Lane, python: str) -> Path:
    """Install the packages into the environment of a lane; lanes of the newest ones share theirs."""
    own = lane.lowest or lane.pypi or lane.python
    folder = FOLDER / (lane.name if own else "newest")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "constraints.txt"
    file.write_text(constraints(lane.lowest) if lane.lowest else "")
    words = ["--constraint", file, "--editable", f"{ROOT}[{','.join(EXTRAS)}]", *lane.pypi]
    return make_environment(folder / "venv", python, words)


def make_environment(place: Path, python: str, words: Sequence[object]) -> Path:
    """The Python of a new environment at a place, with what `uv pip install words…` installs.

    Raises `NotThere` without network, `CannotInstall` for what does not go together or cannot be built.
    """
    uv, its_python = Path(sys.executable).with_name("uv"), place / "bin/python"
    # Tests of the installer call pip.
    make = [uv, "venv", "--quiet", "--clear", "--seed", "--python", python, place]
    for command in (make, [uv, "pip", "install", "--quiet", "--python", its_python, *words]):
        done = _run([str(word) for word in command])
        if done.returncode:
            why = " ".join(done.stdout.split())
            error = NotThere if any(words in why for words in _NO_NETWORK) else CannotInstall
            raise error(f"its packages cannot be installed: {why}")
    return its_python


def _run(
    words: Sequence[str], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(words, cwd=ROOT, env=env, text=True, check=False, **output)  # type: ignore[call-overload,no-any-return]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
