"""The budgets: a thing that outgrows its file is split by thing, never into utils, helpers, common or base.

A function's lines run from its `def` to its last line, docstring included, decorators not.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import sources

MODULE, FUNCTION, TEMPLATE, FRAGMENT, STATEMENT = 300, 40, 60, 40, 60

# What may be larger, with the written reason: {"flask_opsjobs/web/urls.py": "one table of every URL"}.
# A function's key ends with its name: "flask_opsjobs/jobs/enqueue.py:enqueue".
EXCUSED: dict[str, str] = {}


def _length(path: Path) -> int:
    return len(path.read_text().splitlines())


def _too_long(paths: list[Path], budget: int) -> list[str]:
    return [
        f"{name} has {length} lines of {budget}"
        for path in paths
        if (length := _length(path)) > budget
        and (name := str(path.relative_to(sources.ROOT))) not in EXCUSED
    ]


@pytest.mark.parametrize(
    ("folder", "pattern", "budget"),
    [
        ("flask_opsjobs", "*.py", MODULE),
        ("migrations", "*.py", MODULE),
        ("examples", "*.py", MODULE),
        ("flask_opsjobs", "*.sql", STATEMENT),
        ("templates", "[!_]*.html", TEMPLATE),
        ("templates", "_*.html", FRAGMENT),
    ],
)
def test_no_file_outgrows_its_budget(folder: str, pattern: str, budget: int) -> None:
    too_long = _too_long(sources.files(folder, pattern), budget)
    assert not too_long, "\n".join(too_long)


def test_no_function_outgrows_its_budget() -> None:
    too_long = []
    for path in sources.python("flask_opsjobs", "migrations", "examples"):
        for node in ast.walk(sources.tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            name = f"{path.relative_to(sources.ROOT)}:{node.name}"
            if length > FUNCTION and name not in EXCUSED:
                too_long.append(f"{name} has {length} lines of {FUNCTION}")
    assert not too_long, "\n".join(too_long)


def test_our_javascript_stays_small() -> None:
    too_long = _too_long(sources.files("static", "opsjobs.js"), 150)
    assert not too_long, "\n".join(too_long)
