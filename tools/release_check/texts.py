"""Checks what is written in the checkout: the version, CHANGES, lanes, the public address, vendored files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools.claims import sentences
from tools.lanes import LANES
from tools.lanes.results import read

from .commands import output
from .step import Release

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
# How a host pins us, in README and docs.
_PIN = re.compile(r"flask-opsjobs ?(?:~=|==|>=) ?([\d.]+)")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_DATED = re.compile(r"(\S+) \((\d{4}-\d\d-\d\d)\)")
# What is true only until there is a release: a sentence that says so, and an install from a checkout.
_UNRELEASED = re.compile(r"\bfirst release\b|\breleased?s?\b.*\byet\b")
_FROM_A_CHECKOUT = re.compile(r"pip install \S*/path/to/[^\s`]+")
# What runs at a host.
CODE = ("flask_opsjobs", "migrations", "templates", "static", "pyproject.toml")


def version(root: Path) -> str:
    """The version, from the one place where it stands."""
    found = _VERSION.findall((root / "flask_opsjobs/__init__.py").read_text())
    return str(found[0]) if len(found) == 1 else ""


def version_faults(release: Release) -> Iterator[str]:
    """Where another version stands than in `flask_opsjobs/__init__.py`, and where it stands again."""
    ours = version(release.root)
    if not re.fullmatch(r"\d+\.\d+\.\d+", ours):
        yield f"flask_opsjobs/__init__.py: the version is {ours!r}"
        return
    project = tomllib.loads((release.root / "pyproject.toml").read_text())["project"]
    if "version" in project:
        yield f"pyproject.toml: has a version of its own, {project['version']}"
    for file in (release.wheel, release.sdist):
        if f"-{ours}-" not in file.name and f"-{ours}.tar" not in file.name:
            yield f"{file.name}: is not of version {ours}"
    minor = ours.rpartition(".")[0] + ".0"
    for page in _pages(release.root):
        for pin in _PIN.findall(page.read_text()):
            if pin.rstrip(".") != minor:
                yield f"{page.relative_to(release.root)}: pins {pin}, not {minor}"


def changes_faults(release: Release) -> Iterator[str]:
    """What keeps CHANGES.md from beginning with a dated section of this version that says something."""
    parts = _SECTION.split((release.root / "CHANGES.md").read_text())[1:]
    sections = list(zip(parts[::2], parts[1::2], strict=True))
    if sections and sections[0][0] == "Unreleased":
        if sections[0][1].strip():
            yield "CHANGES.md: lines stand under Unreleased"
        del sections[0]
    ours = version(release.root)
    dated = _DATED.fullmatch(sections[0][0]) if sections else None
    if dated is None or dated[1] != ours:
        yield f"CHANGES.md: the newest section is not `## {ours} (YYYY-MM-DD)`"
    elif not sections[0][1].strip():
        yield f"CHANGES.md: the section of {ours} says nothing"
    for page in _pages(release.root):
        for line, words in unreleased(page.read_text()):
            yield f"{page.relative_to(release.root)}:{line}: {words}"


def unreleased(text: str) -> Iterator[tuple[int, str]]:
    """What of a page is true only until there is a release: the line of its paragraph, and the words."""
    for line, sentence in sentences(text):
        if _UNRELEASED.search(sentence):
            yield line, sentence
    for number, line_of_text in enumerate(text.splitlines(), 1):
        if found := _FROM_A_CHECKOUT.search(line_of_text):
            yield number, found[0]


def _pages(root: Path) -> Iterator[Path]:
    """What people read of README and docs, but for decisions."""
    named = [root / name for name in ("README.md", "UPGRADING.md", "docs/support.toml")]
    yield from (page for page in (*named, *sorted((root / "docs").glob("*.md"))) if page.exists())


def stale_lanes(release: Release) -> Iterator[str]:
    """Test lanes that have not passed on the code of this release."""
    rows = {row.name: row for row in read(release.root / "docs/lanes.toml")}
    for name in LANES:
        row = rows.get(name)
        if row is None:
            yield f"{name}: not run"
        elif row.result != "passed":
            yield f"{name}: {row.result}: {row.why}"
        elif why := _why_stale(release.root, row.commit):
            yield f"{name}: ran on {row.date}, {why}"


def _why_stale(root: Path, commit: str) -> str:
    if not commit:
        return "and its commit was not recorded"
    if commit.endswith("+"):
        return f"on {commit.rstrip('+')} with changes that were not committed"
    # git says 1 for a difference, and more for a commit that it does not have.
    code = output(["git", "-C", root, "diff", "--quiet", commit, "--", *CODE]).returncode
    if code > 1:
        return f"on {commit}, which this checkout does not have"
    return f"on {commit}, and the code has changed since" if code else ""


def address_faults(release: Release) -> Iterator[str]:
    """Whether the project has no public address."""
    tool = tomllib.loads((release.root / "pyproject.toml").read_text())["tool"]
    if not tool["hatch"]["metadata"]["hooks"]["custom"]["public-address"]:
        yield "pyproject.toml: public-address is empty, so its page on an index has no links and no pictures"


def licence_faults(release: Release) -> Iterator[str]:
    """Vendored files without a licence beside them that names the file's version."""
    folder = release.root / "static/vendor"
    for file in sorted(folder.iterdir()):
        if file.name.endswith("-LICENSE.txt"):
            continue
        name, _, rest = file.name.partition("-")
        licence = folder / f"{name}-LICENSE.txt"
        found = re.match(r"\d+(\.\d+)*", rest)
        where = file.relative_to(release.root)
        if not licence.is_file():
            yield f"{where}: has no {licence.name} beside it"
        elif found is None or f"{name} {found[0]}," not in licence.read_text().partition("\n")[0]:
            yield f"{where}: the first line of {licence.name} does not name this version"
