"""The project's files as text and as syntax trees, for the tests that read code instead of running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(folder: str, pattern: str) -> list[Path]:
    """The files below `folder` of the repository, in order."""
    return sorted((ROOT / folder).rglob(pattern))


def python(*folders: str) -> list[Path]:
    """The Python modules below these folders."""
    return [path for folder in folders for path in files(folder, "*.py")]


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(), str(path))


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a file with where it stands: `("flask_opsjobs/core/db.py:7", "…")`."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield place(path, number), line


def place(path: Path, line: int) -> str:
    """Where something stands, as editors and terminals understand it."""
    return f"{path.relative_to(ROOT)}:{line}"
