"""Takes this package out of a host's migrations, so that they run without it, and says what is lost."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flask import Flask
from sqlalchemy import Connection

from ..core import sql
from ..core.db import SCHEMA
from ..core.words import agree, counted
from ..errors import ConfigError
from ..jobs.lifecycle import FINAL, STATES
from . import env_file, revisions
from .files import write_file
from .losses import count_up_to_a_million, say_rows
from .plan import shown
from .starters import CHANGES

_PACKAGE = "flask_opsjobs"
_AGAIN = "then run `flask opsjobs uninstall` again"
_DROP = f"a revision that drops the schema {SCHEMA}, in plain SQL"
_EMPTIED = "pass  # A schema step of opsjobs was here; `flask opsjobs uninstall` took it out."

# --- what is lost, and what is in the way

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p') ORDER BY relname
"""


def list_lost(connection: Connection) -> Iterator[str]:
    """What goes with the schema: a line for each table with rows, and each object of the host in its way."""
    quote = connection.dialect.identifier_preparer.quote
    for (table,) in connection.exec_driver_sql(_TABLES, (SCHEMA,)).all():
        number = count_up_to_a_million(connection, f"{SCHEMA}.{quote(table)}")
        if number:
            yield f"{SCHEMA}.{table}: {say_rows(number)}"
    for (dependent,) in connection.exec_driver_sql(sql.load("list_dependents")).all():
        yield f"{dependent}, which needs a table of {SCHEMA}"


def list_unfinished(connection: Connection) -> Iterator[str]:
    """How many jobs have not ended, a sentence for each state."""
    states = {"states": [state for state in STATES if state not in FINAL]}
    for state, number in connection.exec_driver_sql(sql.load("count_unfinished"), states).all():
        yield f"{counted(number, 'job')} {agree(number, 'is', 'are')} {state}"


# --- the host's migrations


@dataclass(frozen=True)
class Removal:
    """What changes in the host's migrations: the text of each changed file, and the head of the new revision.

    `is_called` says whether a revision calls our steps. Only then the schema is dropped, by a new revision.
    """

    found: revisions.Revisions
    texts: dict[Path, str]
    head: str | None
    is_called: bool


def plan_removal(app: Flask, wanted: str | None) -> Removal:
    """Read the revisions and env.py, and write nothing. The new revision follows the head `wanted`.

    Raises `ConfigError` when only a person can take this package out of a file, when a file cannot be
    written, or when there are several heads and none is chosen.
    """
    found = revisions.find_revisions(app)
    scripts = sorted(Path(script.path) for script in found.scripts.walk_revisions())
    texts = {}
    for path in (*scripts, env_file.path_of(found)):
        source = revisions.read_source(path)
        text = without_us(path, env_file.without_lines(source))
        if text != source:
            texts[path] = text
    is_called = found.reaches > 0
    for path in texts:
        if not os.access(path, os.W_OK):
            raise ConfigError(f"cannot write {shown(path)}: let this user write it, {_AGAIN}")
    head = revisions.choose_last_head(found, wanted) if is_called else None
    return Removal(found, texts, head, is_called)


def write_removal(removal: Removal, bind: str | None) -> list[str]:
    """Write the revision that drops the schema, then each changed file. Returns a line about each."""
    written = []
    if removal.is_called:
        path = revisions.write_drop(removal.found, bind, removal.head)
        written.append(f"{shown(path)}: {_DROP}")
    for path, text in removal.texts.items():
        write_file(path, text)
        written.append(_say_changed(path))
    return written


def say_planned(removal: Removal) -> list[str]:
    """What `write_removal` would write, a line for each file."""
    new = [f"a new file in {shown(removal.found.directory)}: {_DROP}"] if removal.is_called else []
    return [*new, *map(_say_changed, removal.texts)]


def _say_changed(path: Path) -> str:
    """What changes in a file of the host's migrations."""
    return f"{shown(path)}: without what it calls of {_PACKAGE}"


def without_us(path: Path, source: str) -> str:
    """The file without our imports, and with `pass` for our calls. Raises `ConfigError` when any is left."""
    if _PACKAGE not in source:
        return source
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source, str(path))
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and _packages(node) == {_PACKAGE}:
            ours |= {each.asname or each.name.partition(".")[0] for each in node.names}
            _replace(lines, node, "pass" if node.col_offset else "")
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _root(node) in ours:
            _replace(lines, node, _EMPTIED)
    text = "".join(lines)
    for node in ast.walk(ast.parse(text)):
        if (isinstance(node, ast.Import | ast.ImportFrom) and _PACKAGE in _packages(node)) or (
            isinstance(node, ast.Name) and node.id in ours
        ):
            raise ConfigError(
                f"{shown(path)} uses {_PACKAGE} in a way of its own, in `{ast.unparse(node)}`: "
                f"take that out by hand, {_AGAIN}"
            )
    return text


def _packages(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The packages that a statement imports, or imports from."""
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return {each.name.partition(".")[0] for each in node.names}


def _root(node: ast.Expr) -> str:
    """The name with which a call begins: `steps` in `steps.upgrade(op, to=1)`."""
    return ast.unparse(node.value).partition("(")[0].partition(".")[0]


def _replace(lines: list[str], node: ast.stmt, text: str) -> None:
    """Put `text` in the place of a statement that has its lines for itself; else change nothing."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :].strip()
    if before.strip() or (after and not after.startswith("#")):
        return
    newline = env_file.find_newline(lines[last])
    lines[first : last + 1] = [f"{before}{text}{newline}" if text else "", *[""] * (last - first)]


# --- the host's other files

# What names us in a host's own code, and in its list of packages: OpsJobs, OPSJOBS_BIND, flask-opsjobs, ….
_NAMES_US = re.compile("opsjobs", re.I)
_LISTS = ("*requirements*.txt", "pyproject.toml", "setup.cfg")
# So much of such a line is shown.
_LONGEST = 110


def list_lines_of_host(app: Flask, removal: Removal) -> list[str]:
    """The lines outside the migrations that name this package, each with its place: a person removes them.

    A long line is cut around the first such name. The policies are left out: nothing imports them any more
    once these lines are gone. So is what this user cannot read, since no app of theirs reads it.
    """
    here, root = Path.cwd(), Path(app.root_path)
    root, found = here if root.is_relative_to(here) else root, []
    files = {*_list_python(root, removal.found.directory.absolute())}
    files |= {path for name in _LISTS for path in here.glob(name)}
    for path in sorted(files):
        text = ""
        with suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if named := _NAMES_US.search(line := line.strip()):
                found.append(f"{shown(path)}:{number}: {_cut_around(line, named.start())}")
    return found


def _cut_around(line: str, place: int) -> str:
    """The line, with … for what is left out of a long one at its ends; what stands at `place` is shown."""
    begin = max(0, min(place - _LONGEST // 2, len(line) - _LONGEST))
    end = begin + _LONGEST
    before, after = "…" if begin else "", "…" if end < len(line) else ""
    return f"{before}{line[begin + len(before) : end - len(after)]}{after}"


def _list_python(folder: Path, migrations: Path) -> Iterator[Path]:
    """The Python files below, outside of the migrations, of hidden folders and of virtual environments."""
    paths: list[Path] = []
    with suppress(OSError):
        paths += folder.iterdir()
    for path in paths:
        if os.path.isdir(path) and not path.is_symlink():
            is_own = path.name[0] != "." and path.absolute() != migrations
            if is_own and not os.path.exists(path / "pyvenv.cfg") and path.name != "node_modules":
                yield from _list_python(path, migrations)
        elif path.suffix == ".py" and path.stem not in CHANGES:
            yield path
