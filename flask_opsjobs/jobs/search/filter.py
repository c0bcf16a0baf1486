"""Holds which jobs a list shows, in one frozen value that reads and writes the query string."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..lifecycle import STATES
from . import ids as search_ids
from . import terms as search_terms
from .terms import Argument, BadFilter, Term

QUALIFIERS = ("state", "queue", "task", "tag", "error", "created", "origin", "id")
ORIGINS = ("opsjobs", "rq")
LIMITS = (25, 50, 100)
_MOST_ARGUMENTS = 8
# What else may stand in the address of a list; the doors read these themselves.
_ELSEWHERE = ("before", "after")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = re.compile(r"([<>])([0-9]{1,5})([smhd])")


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
    task: str | None = None
    tag: str | None = None
    error: str | None = None
    created: Created | None = None
    origin: str | None = None
    id: int | None = None
    args: tuple[Argument, ...] = ()
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, pairs: Iterable[tuple[str, str]]) -> JobFilter:
        """The filter in a query string's pairs; empty values count as absent.

        `q` holds the search box, whose qualifiers mean the same as the parameters of their names, and `args` a box of
        arguments only. Raises `BadFilter` at the first thing that is unknown, malformed or said twice, and
        `Unqualified`, which is one, at a word without a qualifier.
        """
        found: dict[str, Any] = {}
        for term in _terms(pairs):
            parsed = _parse(term)
            if found.setdefault(term.name, parsed) != parsed:
                says = f"is both {found[term.name]} and {parsed}; say it once"
                raise BadFilter(term.name, says)
        args = tuple(found.pop(name) for name in sorted(found) if search_terms.is_argument(name))
        if len(args) > _MOST_ARGUMENTS:
            raise BadFilter("args", f"at most {_MOST_ARGUMENTS} arguments can be searched at once")
        return cls(args=args, **found)

    def to_query(self) -> dict[str, str]:
        """The shortest query string that `from_query` reads as this filter, as parameters of a URL."""
        query = {name: str(value) for name, value in self._named if value is not None}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def but(self, **changes: Any) -> JobFilter:
        """This filter with something else in some places; None takes a condition away."""
        return replace(self, **changes)

    def without(self, name: str) -> JobFilter:
        """This filter without one of its `terms`."""
        if search_terms.is_argument(name):
            return self.but(args=tuple(one for one in self.args if one.name != name))
        return self.but(**{name: None})

    @property
    def terms(self) -> dict[str, str]:
        """The conditions as a person writes them into the search box, `state` apart: it has tabs."""
        pairs = (pair for pair in self._named if pair[0] != "state" and pair[1] is not None)
        return {name: search_terms.write_term(name, value) for name, value in pairs}

    @property
    def text(self) -> str:
        """What the search box shows."""
        return " ".join(self.terms.values())

    @property
    def arguments(self) -> str:
        """Its arguments in a box of their own, without `args.` before each."""
        return " ".join(search_terms.write_term(".".join(one.path), one) for one in self.args)

    @property
    def conditions(self) -> str:
        """A text that is equal for two filters if they choose the same jobs; cursors are bound to it."""
        return repr([(name, str(value)) for name, value in self._named if value is not None])

    @property
    def is_search(self) -> bool:
        """Whether it asks for what no index has in the order of a list, so that only so many are looked at."""
        return bool(self.args or self.tag or self.error or self.id is not None)

    @property
    def needs_payload(self) -> bool:
        """Whether it looks into what only `payload.view` may see."""
        return bool(self.args or self.error)

    @property
    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, getattr(self, name)) for name in QUALIFIERS)
        yield from ((argument.name, argument) for argument in self.args)


def _terms(pairs: Iterable[tuple[str, str]]) -> Iterator[Term]:
    for name, value in pairs:
        if name in _ELSEWHERE or not value:
            continue
        if name == "q":
            yield from search_terms.split_terms(value)
        elif name == "args":
            for term in search_terms.split_terms(value):
                yield replace(term, name=f"args.{term.name.removeprefix('args.')}")
        else:
            yield search_terms.read_field(name, value)


def _parse(term: Term) -> Any:
    if search_terms.is_argument(term.name):
        return search_terms.read_argument(term)
    if term.name not in _PARSERS:
        known = ", ".join((*QUALIFIERS, "args.NAME"))
        raise BadFilter(term.name[:40], f"cannot be searched; known are {known}")
    return _PARSERS[term.name](term.value)


def _one_of(qualifier: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        says = f"there is no {qualifier} {value[:40]!r}; known are {', '.join(known)}"
        raise BadFilter(qualifier, says)
    return value


def _created(value: str) -> Created:
    span = _SPAN.fullmatch(value.replace(" ", ""))
    if span is None:
        raise BadFilter(
            "created", f"{value[:40]!r} is no span; write <2h or >3d, with s, m, h or d"
        )
    return Created(span[1] == "<", int(span[2]), span[3])


def _id(value: str) -> int:
    found = search_ids.read_job_id(value.strip())
    if found is None:
        raise BadFilter("id", f"{value[:40]!r} is neither a job's id nor an RQ id")
    return found


def _limit(value: str) -> int:
    if value not in {str(limit) for limit in LIMITS}:
        raise BadFilter("limit", f"a page has {', '.join(map(str, LIMITS))} jobs, not {value[:40]}")
    return int(value)


_PARSERS = {
    "state": lambda value: _one_of("state", value, STATES),
    "queue": lambda value: search_terms.check_text("queue", value),
    "task": lambda value: search_terms.check_text("task", value),
    "tag": lambda value: search_terms.check_text("tag", value),
    "error": lambda value: search_terms.check_text("error", value),
    "created": _created,
    "origin": lambda value: _one_of("origin", value, ORIGINS),
    "id": _id,
    "limit": _limit,
}
