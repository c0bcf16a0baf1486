"""Which jobs a list shows: one frozen value that owns the query string, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..errors import OpsJobsError
from .lifecycle import STATES

QUALIFIERS = ("state", "queue", "worker", "created")
LIMITS = (25, 50, 100)
_LONGEST_NAME = 200
# What else may stand in the address of a list; the doors read these themselves.
_ELSEWHERE = ("before", "after")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = re.compile(r"([<>])([0-9]{1,5})([smhd])")
_TERM = re.compile(r'(?:(?P<name>[\w.]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]*))(?=\s|$)')


class BadFilter(OpsJobsError):
    """A filter that cannot be read; the message names the qualifier and says what is allowed."""

    def __init__(self, qualifier: str, problem: str) -> None:
        self.qualifier = qualifier
        super().__init__(f"{qualifier}: {problem}")


@dataclass(frozen=True)
class Created:
    """Recorded less (`<2h`) or more (`>2h`) than so long ago."""

    is_within: bool
    amount: int
    unit: str

    @property
    def span(self) -> timedelta:
        """How far back the boundary lies."""
        return timedelta(**{_UNITS[self.unit]: self.amount})

    def __str__(self) -> str:
        return f"{'<' if self.is_within else '>'}{self.amount}{self.unit}"


@dataclass(frozen=True)
class JobFilter:
    """All that must hold of a job, and how many a page shows. A link is always this filter `but(…)`."""

    state: str | None = None
    queue: str | None = None
    worker: str | None = None
    created: Created | None = None
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, pairs: Iterable[tuple[str, str]]) -> JobFilter:
        """The filter in a query string's pairs; empty values count as absent.

        `q` holds the search box, whose qualifiers mean the same as the parameters of their names.
        Raises `BadFilter` at the first thing that is unknown, malformed or said twice.
        """
        found: dict[str, Any] = {}
        for name, value in _flatten(pairs):
            if name not in _PARSERS:
                raise BadFilter(name[:40], f"cannot be searched; known are {', '.join(QUALIFIERS)}")
            parsed = _PARSERS[name](value)
            if found.setdefault(name, parsed) != parsed:
                raise BadFilter(name, f"is both {found[name]} and {parsed}; say it once")
        return cls(**found)

    def to_query(self) -> dict[str, str]:
        """The shortest query string that `from_query` reads as this filter, as parameters of a URL."""
        query = {name: str(getattr(self, name)) for name in QUALIFIERS if getattr(self, name)}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def but(self, **changes: Any) -> JobFilter:
        """This filter with something else in some places; None takes a condition away."""
        return replace(self, **changes)

    @property
    def terms(self) -> dict[str, str]:
        """The conditions as a person writes them into the search box, `state` apart: it has tabs."""
        pairs = {name: getattr(self, name) for name in QUALIFIERS[1:]}
        return {name: f"{name}:{_quoted(str(value))}" for name, value in pairs.items() if value}

    @property
    def text(self) -> str:
        """What the search box shows."""
        return " ".join(self.terms.values())

    @property
    def conditions(self) -> str:
        """A text that is equal for two filters if they choose the same jobs; cursors are bound to it."""
        return repr([(name, str(getattr(self, name))) for name in QUALIFIERS])


def _flatten(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if name in _ELSEWHERE or not value:
            continue
        if name == "q":
            yield from _terms(value)
        else:
            yield name, value


def _terms(text: str) -> Iterator[tuple[str, str]]:
    """The `name:value` pairs of a search box. Raises `BadFilter` at words that have no qualifier."""
    _refuse_control_characters("search", text)
    rest = text.strip()
    while rest:
        term = _TERM.match(rest)
        if term is None:
            raise BadFilter(
                "search", f"cannot read {rest[:40]!r}; a value in quotes ends with a quote"
            )
        value = term["quoted"] if term["quoted"] is not None else term["bare"]
        if not term["name"]:
            raise BadFilter(
                "search", f"what is {value[:40]!r}? Write worker:{value[:40] or 'name'}"
            )
        if not value:
            raise BadFilter(term["name"], "needs a value")
        yield term["name"], value
        rest = rest[term.end() :].lstrip()


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"\s", value) else value


def _refuse_control_characters(qualifier: str, text: str) -> None:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise BadFilter(qualifier, "holds a control character")


def _state(value: str) -> str:
    if value not in STATES:
        raise BadFilter("state", f"there is no state {value[:40]!r}; known are {', '.join(STATES)}")
    return value


def _name(qualifier: str, value: str) -> str:
    _refuse_control_characters(qualifier, value)
    if len(value) > _LONGEST_NAME:
        raise BadFilter(qualifier, f"a name has at most {_LONGEST_NAME} characters")
    if '"' in value:
        raise BadFilter(qualifier, "a name with a quotation mark cannot be searched")
    return value


def _created(value: str) -> Created:
    span = _SPAN.fullmatch(value.replace(" ", ""))
    if span is None:
        raise BadFilter(
            "created", f"{value[:40]!r} is no span; write <2h or >3d, with s, m, h or d"
        )
    return Created(span[1] == "<", int(span[2]), span[3])


def _limit(value: str) -> int:
    if value not in {str(limit) for limit in LIMITS}:
        raise BadFilter("limit", f"a page has {', '.join(map(str, LIMITS))} jobs, not {value[:40]}")
    return int(value)


_PARSERS = {
    "state": _state,
    "queue": lambda value: _name("queue", value),
    "worker": lambda value: _name("worker", value),
    "created": _created,
    "limit": _limit,
}
