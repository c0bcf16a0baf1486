"""Writes the reference pages: every command with its help, every public name, what is supported and was run.

The public names are those of `tests/test_examples.py`, which runs the example of each. What is supported is
data, in `docs/support.toml`, and so is what came of the test lanes, in `docs/lanes.toml`.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from flask_opsjobs.cli import opsjobs as group
from tests.test_examples import PUBLIC
from tools.lanes import LANES, RESULTS
from tools.lanes.results import read

WIDTH = 100
SUPPORT = Path(__file__).parents[1] / "support.toml"
# The objects on which a host calls the methods of these classes.
OBJECTS = {
    "OpsJobs": "opsjobs",
    "Operator": "opsjobs.operator",
    "BulkOperator": "opsjobs.operator",
    "CurrentJob": "current_job()",
}
WORDS = ("supported", "tested", "best-effort", "host-owned", "intentionally unsupported")


class Commands(SphinxDirective):
    """Lists every command of `flask opsjobs` with what `--help` prints."""

    def run(self) -> list[nodes.Node]:
        return [_section(words, _literal(text, "text")) for words, text in helps()]


class PublicNames(SphinxDirective):
    """Lists every public name of a kind with its signature and its docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [
            _section(written(name), *self._described(found))
            for name, found in PUBLIC.items()
            if kind_of(name) == self.arguments[0]
        ]

    def _described(self, found: Any) -> Iterator[nodes.Node]:
        if signature := signature_of(found):
            yield _literal(signature, "python")
        for paragraph in re.split(r"\n\s*\n", inspect.getdoc(found) or ""):
            if paragraph.startswith(">>>"):
                yield _literal(paragraph, "pycon")
            else:
                yield from self.parse_text_to_nodes(paragraph)


class SupportTruth(SphinxDirective):
    """Lists the rows of `docs/support.toml`, a table for each word."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(SUPPORT))
        return [_section(word, *self._table(word)) for word in WORDS]

    def _table(self, word: str) -> list[nodes.Node]:
        lines = ["| what | note, or shown by |", "| --- | --- |"]
        for row in tomllib.loads(SUPPORT.read_text())["row"]:
            if row["word"] == word:
                shown = [f"`{test}`" for test in row.get("shown_by", ())]
                shown += [f"the lane `{lane}`" for lane in row.get("lanes", ())]
                cells = row["claim"], " ".join(filter(None, (row.get("note"), ", ".join(shown))))
                lines.append(f"| {' | '.join(cells)} |")
        return self.parse_text_to_nodes("\n".join(lines))


class TestLanes(SphinxDirective):
    """Lists the test lanes with the rows of `docs/lanes.toml`; one without a row was not run."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RESULTS))
        rows = {row.name: row for row in read(RESULTS)}
        head = ("lane", "what it runs on", "result", "date", "commit", "versions")
        lines = [f"| {' | '.join(head)} |", f"|{' - |' * len(head)}"]
        for lane in LANES.values():
            row = rows.get(lane.name)
            cells = ["*not run*", "", "", ""]
            if row is not None:
                result = f"{row.result}: {row.passed} tests" if row.passed else f"*{row.result}*"
                versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
                commit = row.commit or ("not recorded" if row.versions else "")
                cells = [result, str(row.date), commit, row.why or versions]
            lines.append(" | ".join(["", f"`{lane.name}`", lane.what, *cells, ""]).strip())
        return self.parse_text_to_nodes("\n".join(lines))


def helps() -> Iterator[tuple[str, str]]:
    """Each command that can be typed, with the text of its help. Groups come before their commands."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        yield from _help_of(command, f"flask opsjobs {name}")


def _help_of(command: click.Command, words: str) -> Iterator[tuple[str, str]]:
    yield (
        words,
        command.get_help(click.Context(command, info_name=words, max_content_width=WIDTH)),
    )
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _help_of(child, f"{words} {name}")


def kind_of(name: str) -> str:
    """Where a public name is listed: with its class, among those for tests, or among those to import."""
    owner, dot, _ = name.partition(".")
    if dot:
        return owner
    return "testing" if ".testing" in getattr(PUBLIC[name], "__module__", "") else "import"


def written(name: str) -> str:
    """How a host writes it: the methods of the extension are called on its object."""
    owner, dot, rest = name.partition(".")
    return OBJECTS.get(owner, owner) + dot + rest if dot else name


def signature_of(found: Any) -> str:
    """How it is called; nothing for a property, and for a class that nobody calls."""
    if isinstance(found, property):
        return ""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    parameters = [
        each.replace(annotation=_Plain(each.annotation))
        if isinstance(each.annotation, str)
        else each
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    returned = signature.return_annotation
    plain = signature.replace(
        parameters=parameters,
        return_annotation=_Plain(returned) if isinstance(returned, str) else returned,
    )
    return f"{getattr(found, '__name__', '')}{plain}"


class _Plain(str):
    """An annotation as it is written, without the quotes that make a text of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _section(title: str, *content: nodes.Node) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(title)], names=[title])
    section += nodes.title("", "", nodes.literal("", title))
    section += content
    return section


def _literal(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


def setup(app: Any) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("commands", Commands)
    app.add_directive("public-names", PublicNames)
    app.add_directive("support-truth", SupportTruth)
    app.add_directive("test-lanes", TestLanes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
