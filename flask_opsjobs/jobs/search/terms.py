"""Parses what a person types: the terms `name:value` of the search box, values of arguments, and ids.

A term is `name:value`, `name:"a value"`, or a word alone, which searches errors. Between quotes, `""` is a
quotation mark. `-` before it negates it,
and `OR` between two terms joins them: a search is a list of clauses, of which all must match, and a clause is
a list of terms, of which one must match.
"""

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
DATE_AND_TIME = "a date and its time are written 2026-11-27T14:30"
_ARGS = "args."

# A longer address would be refused by most web servers.
_MOST_TERMS = 100
_OR = "OR"
# Words of other search boxes, and what is written here instead.
_INSTEAD_OF = {
    "AND": "terms beside each other must all match, without AND",
    "NOT": "write - before a term that must not match, such as -queue:mail",
}
_TERM = re.compile(
    r'(?P<minus>-?)(?:(?P<name>[\w.][\w.-]*):)?(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^\s"]*))(?=\s|$)'
)
# Numbers that Postgres' numeric certainly holds; a longer one is searched only as a text.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")
_WORDS = ("true", "false", "null")


class BadFilter(OpsJobsError):
    """A filter cannot be read; the message names the qualifier and says what is allowed.

    `place` is where the mistake is in the text of the search box, as (begin, end); None when it is elsewhere.
    """

    def __init__(self, qualifier: str, problem: str, place: tuple[int, int] | None = None) -> None:
        self.qualifier, self.place = qualifier, place
        super().__init__(f"{qualifier}: {problem}")


@dataclass(frozen=True)
class Term:
    """One term `name:value`, and its place in the text. A word alone has no name.

    A value in quotes is always a text, even when it looks like a number or has a `*`.
    """

    name: str
    value: str
    is_quoted: bool
    is_not: bool = False
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pattern:
    """A name with `*` for any characters: `send_*`."""

    text: str

    @property
    def like(self) -> str:
        """The same for the operator LIKE of Postgres, with a backslash to escape."""
        return escape_like(self.text).replace("*", "%")

    def fits(self, name: str) -> bool:
        """Whether a name is one of these."""
        expression = ".*".join(map(re.escape, self.text.split("*")))
        return re.fullmatch(expression, name, re.DOTALL) is not None

    def __str__(self) -> str:
        return self.text


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
        is_quoted = is_ambiguous or not self.value or '"' in self.value
        return quote(self.value) if is_quoted else self.value


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
    return Term(name, _unquote(value[1:-1]) if is_quoted else value, is_quoted)


def split_clauses(text: str) -> list[list[Term]]:
    """The terms of a search box, by clause. Raises `BadFilter`, with the place of the mistake."""
    refuse_control_characters("search", text)
    clauses: list[list[Term]] = []
    number = 0
    # The place of an OR that waits for its second term.
    joins: tuple[int, int] | None = None
    for term in _split_terms(text):
        if term.name == "" and term.value == _OR and not (term.is_quoted or term.is_not):
            if joins or not clauses:
                raise BadFilter("search", "OR joins the terms before and after it", term.place)
            joins = term.place
            continue
        if not (term.name or term.is_quoted) and term.value in _INSTEAD_OF:
            problem = f'{_INSTEAD_OF[term.value]}; write "{term.value}" to search the word'
            raise BadFilter("search", problem, term.place)
        number += 1
        if number > _MOST_TERMS:
            raise BadFilter(
                "search", f"at most {_MOST_TERMS} terms can be searched at once", term.place
            )
        if joins:
            clauses[-1].append(term)
        else:
            clauses.append([term])
        joins = None
    if joins:
        raise BadFilter("search", "OR joins the terms before and after it", joins)
    return clauses


def _split_terms(text: str) -> Iterator[Term]:
    at = 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        found = _TERM.match(text, at)
        if found is None:
            rest = text[at:].split(maxsplit=1)[0]
            is_compared = re.match(r'[^\s"]*:[<>]=?"', rest)  # such as created:>"2026-11-27 14:30"
            todo = (
                DATE_AND_TIME if is_compared else "a value in quotes begins and ends with a quote"
            )
            problem = f"cannot read {text[at : at + 40]!r}; {todo}"
            raise BadFilter("search", problem, (at, at + len(rest)))
        place = (at, found.end())
        is_quoted = found["quoted"] is not None
        name = found["name"] or ""
        value = _unquote(found["quoted"]) if is_quoted else found["bare"]
        if not name and not value:
            raise BadFilter("search", f"{found[0]!r} needs a word or a term", place)
        if not name and not is_quoted and value.startswith("-"):
            # Such as an option of a command that was not understood.
            raise BadFilter("search", f"{found[0][:40]!r} needs quotes to be searched", place)
        if not value and not (is_quoted and is_argument(name)):
            raise BadFilter(name, "needs a value", place)
        yield Term(name, value, is_quoted, bool(found["minus"]), place)
        at = found.end()


def write_term(name: str, value: Any) -> str:
    """The term as a person types it into the search box. A text that begins with a quote is in quotes."""
    text = str(value)
    is_bare = text[:1] == '"' or not re.search(r"\s", text)
    return f"{name}:{text if is_bare else quote(text)}"


def quote(text: str) -> str:
    """The text in quotes, in which each quotation mark is doubled."""
    return '"' + text.replace('"', '""') + '"'


def _unquote(text: str) -> str:
    return text.replace('""', '"')


def escape_like(text: str) -> str:
    """The text as a pattern of LIKE that only it matches."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def check_text(qualifier: str, value: str) -> str:
    """The value, unchanged. Raises `BadFilter` when a search box cannot hold it."""
    refuse_control_characters(qualifier, value)
    if len(value) > LONGEST:
        raise BadFilter(qualifier[:40], f"has at most {LONGEST} characters")
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
    """The id of a job, from `42`, `job/42` or the RQ id of one of its deliveries; None for any other text."""
    delivery = _RQ.fullmatch(text)
    return read_own(delivery[1] if delivery else text.removeprefix("job/"))


def read_subject(text: str) -> tuple[str, int] | None:
    """What a text such as `workflow/7` or `batch/7` names, and its id; None for any other text."""
    kind, _, id = text.partition("/")
    number = read_own(id) if kind in ("workflow", "batch") else None
    return None if number is None else (kind, number)
