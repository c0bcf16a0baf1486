"""Checks the wheel and the sdist: what is in them, and that two builds are the same."""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .commands import command_faults, output
from .step import Failed, Release

# A folder of a person. The names are those of examples.
_HOME = re.compile(rb"(?:/home|/Users|\\Users)[/\\](?!ada\b|user\b|you\b)[A-Za-z0-9_.-]+")


def committed_faults(release: Release) -> Iterator[str]:
    """Files that would come into the archives otherwise than they are committed."""
    # What a person ignores in all their checkouts, a build does not.
    git = ["git", "-C", release.root, "-c", "core.excludesFile="]
    top = output([*git, "rev-parse", "--show-prefix"])
    if top.returncode or top.stdout.strip():
        yield f"{release.root}: is not a git checkout"
        return
    status = output([*git, "status", "--porcelain", "--untracked-files=all"])
    if status.returncode:
        raise Failed(status.stderr.strip())
    for line in status.stdout.splitlines():
        yield f"{line[3:]}: {'is not in git' if line.startswith('??') else 'is not committed'}"


def build(root: Path, folder: Path) -> None:
    """Build the sdist, and from it the wheel, into a folder. Raises `Failed` with what the build said."""
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root]
    for fault in command_faults(words):
        raise Failed(fault)


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Each file of a wheel or an sdist, with what is in it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist())
        return
    with tarfile.open(archive) as sdist:
        for each in sdist.getmembers():
            if (file := sdist.extractfile(each)) is not None:
                yield each.name.partition("/")[2], file.read()


def same_hash_faults(release: Release) -> Iterator[str]:
    """Which of the two archives another build makes with another content."""
    with tempfile.TemporaryDirectory() as folder:
        build(release.root, Path(folder))
        for file in (release.wheel, release.sdist):
            first, second = (_hash(each) for each in (file, Path(folder) / file.name))
            if first != second:
                yield f"{file.name}: {first[:16]}… in one build, {second[:16]}… in the next"


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "nothing"


def wheel_faults(release: Release) -> Iterator[str]:
    """What is in the wheel beside the package, and what it lacks."""
    names = [name for name, _ in members(release.wheel)]
    for name in names:
        if not re.match(r"flask_opsjobs(-[^/]+\.dist-info)?/", name) or "/tests/" in name:
            yield f"the wheel has {name}"
    for needed in ("/licenses/LICENSE", "flask_opsjobs/py.typed", "-LICENSE.txt"):
        if not any(name.endswith(needed) for name in names):
            yield f"the wheel lacks {needed}"


def lacking_faults(release: Release) -> Iterator[str]:
    """What the sdist lacks of what builds, tests and explains it."""
    names = {name for name, _ in members(release.sdist)}
    for needed in ("pyproject.toml", "Makefile", "tests/conftest.py", "docs/index.md", "LICENSE"):
        if needed not in names:
            yield f"the sdist lacks {needed}"


def path_faults(release: Release) -> Iterator[str]:
    """Files of the archives that name the folder of this checkout, or somebody's home."""
    here = [str(folder).encode() + b"/" for folder in (release.root, Path.home())]
    for archive in (release.wheel, release.sdist):
        for name, content in members(archive):
            found = [path for path in here if path in content]
            found += [path[0] for path in [_HOME.search(content)] if path]
            if found:
                yield f"{archive.name}: {name} has the path {found[0].decode(errors='replace')}"
