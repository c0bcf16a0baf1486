"""Parses what a person types: the terms `name:value` of the search box, values of arguments, and ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import OpsJobsError

LONGEST = 200
# How deep a searched argument may be nested: nobody types a longer path.
_DEEPEST = 8
_ARGS = "args."

_TERM = re.compile(r'(?:(?P<name>[\w.-]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]*))(?=\s|$)')
# Numbers that Postgres' numeric certainly holds; a longer one is searched only as a text.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")
_WORDS = ("true", "false", "null")


class BadFilter(OpsJobsError):
    """A filter cannot be read; the message names the qualifier and says what is allowed."""

    def __init__(self, qualifier: str, problem: str) -> None:
        self.qualifier = qualifier
        super().__init__(f"{qualifier}: {problem}")


class Unqualified(BadFilter):
    """A word has no qualifier; `rest` is the search without it.

    A caller with a database may find it as a name.
    """

    def __init__(self, word: str, rest: str) -> None:
        self.word, self.rest = word, rest
        super().__init__("search", f"what is {word[:40]!r}? Write task:{word[:40] or 'name'}")


@dataclass(frozen=True)
class Term:
    """One term `name:value`. A value in quotes is always a text, even when it looks like a number."""

    name: str
    value: str
    is_quoted: bool


@dataclass(frozen=True)
class Argument:
    """The condition that the argument at `path` is `value`: as a text, and unless `is_text` also as JSON."""

    path: tuple[str, ...]
    value: str
    is_text: bool

    @property
    def name(self) -> str:
        """The qualifier, such as `args.account_id`."""
        return _ARGS + ".".join(self.path)

    @property
    def shapes(self) -> Sequence[str]:
        """JSON texts, of which the job's arguments must contain one: for `42` the text and the number."""
        values: list[Any] = [json.dumps(self.value)]
        if not self.is_text:
            values.append(self.value)
        return [self._wrap(value) for value in values]

    def _wrap(self, value: str) -> str:
        for name in reversed(self.path):
            value = f"{{{json.dumps(name)}: {value}}}"
        return value

    def __str__(self) -> str:
        is_ambiguous = self.is_text and _looks_like_json(self.value)
        return f'"{self.value}"' if is_ambiguous or not self.value else self.value


def is_argument(name: str) -> bool:
    """Whether a qualifier names an argument."""
    return name.startswith(_ARGS)


def read_argument(term: Term) -> Argument:
    """The condition that `args.name:value` means. Raises `BadFilter`."""
    path = tuple(term.name[len(_ARGS) :].split("."))
    if not all(path) or len(path) > _DEEPEST:
        raise BadFilter(term.name[:40], f"write args.name:value, with at most {_DEEPEST} names")
    value = check_text(term.name, term.value)
    return Argument(path, value, term.is_quoted or not _looks_like_json(value))


def read_field(name: str, value: str) -> Term:
    """A parameter of a URL as a term; quotes mean the same as in the search box."""
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return Term(name, value[1:-1] if is_quoted and is_argument(name) else value, is_quoted)


def split_terms(text: str) -> Iterator[Term]:
    """The terms of a search box.

    Raises `Unqualified` at a word without a qualifier, `BadFilter` at any other error.
    """
    refuse_control_characters("search", text)
    at = 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        found = _TERM.match(text, at)
        if found is None:
            problem = f"cannot read {text[at : at + 40]!r}; a value in quotes ends with a quote"
            raise BadFilter("search", problem)
        is_quoted = found["quoted"] is not None
        value = found["quoted"] if is_quoted else found["bare"]
        if not found["name"]:
            raise Unqualified(value, f"{text[:at]}{text[found.end() :]}".strip())
        if not value and not (is_quoted and is_argument(found["name"])):
            raise BadFilter(found["name"], "needs a value")
        yield Term(found["name"], value, is_quoted)
        at = found.end()


def write_term(name: str, value: Any) -> str:
    """The term as a person types it into the search box."""
    text = str(value)
    return f'{name}:"{text}"' if re.search(r"\s", text) and text[0] != '"' else f"{name}:{text}"


def check_text(qualifier: str, value: str) -> str:
    """The value, unchanged. Raises `BadFilter` when a search box cannot hold it."""
    refuse_control_characters(qualifier, value)
    if len(value) > LONGEST:
        raise BadFilter(qualifier[:40], f"has at most {LONGEST} characters")
    if '"' in value:
        raise BadFilter(qualifier[:40], "a quotation mark cannot be searched")
    return value


def refuse_control_characters(qualifier: str, text: str) -> None:
    """Raise `BadFilter` when the text has control characters."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise BadFilter(qualifier[:40], "holds a control character")


def _looks_like_json(value: str) -> bool:
    return value in _WORDS or _NUMBER.fullmatch(value) is not None


_OWN = re.compile(r"[0-9]{1,19}")
_RQ = re.compile(r"opsjobs-([0-9]{1,19})-[0-9]{1,19}")


def read_own(text: str) -> int | None:
    """The id of a job; None when the text cannot be one."""
    return int(text) if _OWN.fullmatch(text) and int(text) < 2**63 else None


def read_job_id(text: str) -> int | None:
    """The id of a job, from its id or from the RQ id of one of its deliveries; None for any other text."""
    delivery = _RQ.fullmatch(text)
    return read_own(delivery[1] if delivery else text)


def read_subject(text: str) -> tuple[str, int] | None:
    """What a text such as `workflow/7` or `batch/7` names, and its id; None for any other text."""
    kind, _, id = text.partition("/")
    number = read_own(id) if kind in ("workflow", "batch") else None
    return None if number is None else (kind, number)
