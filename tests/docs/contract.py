"""Finds in a page what the code does not know: a setting, a command, a permission, a metric, an argument.

Each function takes the text of a page and what exists, and yields what is wrong. So a test can hand it a lie.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, get_args, get_type_hints

import click
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"flask (?:--app \S+ )?(\w+.*)")
# What a person fills in.
_BLANK = re.compile(r"…|<\w+>|\b[A-Z]{2,}\b")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language, without their indentation."""
    return [
        re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        for indent, found, code in _BLOCK.findall(text)
        if found == language
    ]


def inline(text: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return _INLINE.findall(_BLOCK.sub("", text))


def python(text: str) -> Iterator[str]:
    """Its blocks of Python, and what stands between backticks and is Python."""
    yield from blocks(text, "python")
    for code in inline(text):
        with suppress(SyntaxError):
            ast.parse(code)
            yield code


def unknown_settings(text: str, known: Collection[str]) -> Iterator[str]:
    """Settings that nobody reads, also as variables of the environment. `OPSJOBS_KEEP_…` is no name."""
    for key in re.findall(r"\b(?:FLASK_)?(OPSJOBS_[A-Z_]*[A-Z])\b", text):
        if key not in known:
            yield key


def typed(text: str) -> Iterator[str]:
    """What a page types into a shell, without comments."""
    for block in blocks(text, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield shlex.join(shlex.split(line[2:], comments=True)) if "#" in line else line[2:]


def wrong_commands(text: str, group: click.Group) -> Iterator[str]:
    """Commands of `flask` that cannot be typed so: their words, their options and their values."""
    for line in typed(text):
        if command := _COMMAND.match(line):
            yield from _refusals(group, command[1].partition(" > ")[0], is_whole=True)
    for code in inline(text):
        if command := _COMMAND.fullmatch(code):
            yield from _refusals(group, command[1], is_whole=False)


def _refusals(group: click.Group, line: str, *, is_whole: bool) -> Iterator[str]:
    """Where a person fills in something, the rest is read: `flask opsjobs limiter explain NAME`."""
    words = shlex.split(line)
    is_whole = is_whole and not any(_is_blank(word) for word in words)
    command: click.Command = group
    try:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            if _is_blank(words[0]):
                return
            _, child, words = command.resolve_command(click.Context(command), words)
            assert child is not None
            command = child
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        unknown = [word for word in words if word.startswith("--")]
        unknown = [word for word in unknown if word.partition("=")[0] not in {*options, "--help"}]
        if unknown and not command.context_settings.get("ignore_unknown_options"):
            yield f"{line}: no option {', '.join(unknown)}"
        elif is_whole and not isinstance(command, click.Group):
            command.make_context(command.name, words)
    except click.UsageError as error:
        # A file that a reader has.
        param = getattr(error, "param", None)
        if param is None or not isinstance(param.type, click.Path):
            yield f"{line}: {error.format_message()}"


def _is_blank(word: str) -> bool:
    return " " not in word and _BLANK.search(word) is not None


def wrong_shell(
    text: str, targets: Collection[str], extras: Collection[str], programs: Collection[str]
) -> Iterator[str]:
    """What a shell or `make` does not know: a program, a target, or an extra that pip is asked for."""
    for line in typed(text):
        program = line.split()[0]
        if program not in programs:
            yield f"{line}: no program {program}"
        if program == "pip":
            asked = ",".join(re.findall(r"flask[_-]opsjobs\[([\w,]+)\]", line)).split(",")
            unknown = [extra for extra in asked if extra and extra not in extras]
            yield from (f"{line}: no extra {extra}" for extra in unknown)
    for line in [*typed(text), *inline(text)]:
        target = re.match(r"make ([a-z]\S*)", line)
        if target and target[1] not in targets:
            yield f"{line}: no target {target[1]}"


def unknown_words(text: str, known: Collection[str]) -> Iterator[str]:
    """Permissions that nobody asks for, and checks that the doctor does not make, such as `job.retry`."""
    domains = {each.partition(".")[0] for each in known}
    for code in inline(text):
        domain, _, word = code.partition(".")
        is_one = re.fullmatch(r"(?!md$|py$|id$)[a-z_]+", word) and (
            domain in domains or word == "view"
        )
        if is_one and code not in known:
            yield code


def unknown_words_of_ours(text: str, known: Collection[str]) -> Iterator[str]:
    """Metrics and fixtures that do not exist. Prometheus adds an ending to the name of a histogram."""
    for name in re.findall(r"(?<!flask_)\b(?:opsjobs_\w+|rq_(?:jobs|worker|request)\w*)", text):
        if re.sub("_(bucket|sum|count)$", "", name) not in known:
            yield name


def unknown_names(code: str) -> Iterator[str]:
    """Names that a Python block imports from flask_opsjobs, and that are not there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flask_opsjobs"):
            try:
                module = import_module(node.module or "")
            except ImportError:
                yield f"{node.module}"
                continue
            for alias in node.names:
                if not hasattr(module, alias.name):
                    try:
                        import_module(f"{node.module}.{alias.name}")
                    except ImportError:
                        yield f"{node.module}.{alias.name}"


def unknown_attributes(code: str, of: Mapping[str, Collection[object]]) -> Iterator[str]:
    """What Python asks of one of these, such as `opsjobs`, and none of its classes or modules has."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Attribute):
            continue
        owners = of.get(ast.unparse(node.value), ())
        if owners and not any(hasattr(each, node.attr) for each in owners):
            yield ast.unparse(node)


def arguments_of(public: Mapping[str, Any]) -> dict[str, set[str]]:
    """The arguments that may be given by name, by the last part of a public name; `**` for any."""
    taken: dict[str, set[str]] = {}
    for name, found in public.items():
        if callable(found):
            taken.setdefault(name.rpartition(".")[2], set()).update(_arguments(found))
    return taken


def unknown_arguments(code: str, taken: Mapping[str, set[str]]) -> Iterator[str]:
    """Arguments that Python gives by name, and that no public function or method of that name takes."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        known = taken.get(called.rpartition(".")[2], {"**"})
        if "**" in known:
            continue
        for each in node.keywords:
            if each.arg is not None and each.arg not in known:
                yield f"{called}: {each.arg}"


def _arguments(called: Any) -> Iterator[str]:
    for each in inspect.signature(called).parameters.values():
        if each.kind is not each.VAR_KEYWORD:
            yield each.name
        elif str(each.annotation).startswith("Unpack["):
            (options,) = get_args(get_type_hints(called)[each.name])
            yield from options.__annotations__
        else:
            yield "**"


def unknown_classes(text: str, known: Collection[str]) -> Iterator[str]:
    """Classes that do not exist, such as an error, between backticks."""
    for code in inline(text):
        if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)+", code) and code not in known:
            yield code


def unknown_addresses(text: str, rules: Map, prefix: str = "/ops/jobs") -> Iterator[str]:
    """Addresses below our prefix at which nothing answers."""
    adapter = rules.bind("localhost")
    for path in re.findall(rf"`({prefix}[^`\s]*)`", text):
        if _BLANK.search(path):
            continue
        try:
            endpoint, _ = adapter.match(path.partition("?")[0], "GET")
        except RequestRedirect:
            continue
        except HTTPException:
            yield path
        else:
            # The last rule takes what nothing else takes, to answer with our own page.
            if endpoint == "opsjobs.missing":
                yield path
