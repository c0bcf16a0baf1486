"""Holds the filter of a list of jobs as one frozen value, and converts it from and to a query string."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..lifecycle import DEATHS, STATES
from . import terms as search_terms
from .terms import Argument, BadFilter, Term

QUALIFIERS = (
    "state",
    "queue",
    "task",
    "tag",
    "error",
    "created",
    "origin",
    "id",
    "workflow",
    "step",
    "batch",
    "failure",
    "death",
    "deploy",
    "worker",
    "incident",
)
ORIGINS = ("opsjobs", "rq")
LIMITS = (25, 50, 100)
_MOST_ARGUMENTS = 8
# Other parameters in the address of a list; the pages read them.
_ELSEWHERE = ("before", "after", "selected")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = re.compile(r"([<>])([0-9]{1,5})([smhd])")


@dataclass(frozen=True)
class Created:
    """The condition that a job was enqueued less (`<2h`) or more (`>2h`) than some time ago."""

    is_within: bool
    amount: int
    unit: str

    @property
    def span(self) -> timedelta:
        """The time between the boundary and now."""
        return timedelta(**{_UNITS[self.unit]: self.amount})

    def __str__(self) -> str:
        return f"{'<' if self.is_within else '>'}{self.amount}{self.unit}"


@dataclass(frozen=True)
class JobFilter:
    """The conditions on jobs, and the size of a page. Every link of a list is made with `but(…)`.

    >>> JobFilter(state="failed", queue="mail").terms
    {'queue': 'queue:mail'}
    >>> JobFilter.from_query([("q", "state:failed queue:mail")]) == JobFilter(state="failed", queue="mail")
    True
    """

    state: str | None = None
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    error: str | None = None
    created: Created | None = None
    origin: str | None = None
    id: int | None = None
    # The id or the name of workflows, of a step in them, and of batches.
    workflow: int | str | None = None
    step: str | None = None
    batch: int | str | None = None
    # The id of a failure, a cause of death, and the version of a deploy: of one attempt.
    failure: int | None = None
    death: str | None = None
    deploy: str | None = None
    # The name of the worker that has it now, and the id of an incident that names it.
    worker: str | None = None
    incident: int | None = None
    args: tuple[Argument, ...] = ()
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, pairs: Iterable[tuple[str, str]]) -> JobFilter:
        """The filter from the pairs of a query string. Empty values count as absent.

        `q` is the text of the search box; its qualifiers mean the same as the parameters of these names.
        `args` is the text of a box that takes only arguments. Raises `BadFilter` at the first term that is
        unknown, malformed or contradicts another, and its subclass `Unqualified` at a word without a
        qualifier.
        """
        found: dict[str, Any] = {}
        for term in _terms(pairs):
            parsed = _parse(term)
            if found.setdefault(term.name, parsed) != parsed:
                problem = f"is both {found[term.name]} and {parsed}; say it once"
                raise BadFilter(term.name, problem)
        args = tuple(found.pop(name) for name in sorted(found) if search_terms.is_argument(name))
        if len(args) > _MOST_ARGUMENTS:
            raise BadFilter("args", f"at most {_MOST_ARGUMENTS} arguments can be searched at once")
        if "step" in found and "workflow" not in found:
            raise BadFilter("step", "needs the workflow too, such as workflow:7 step:notify")
        return cls(args=args, **found)

    def to_query(self) -> dict[str, str]:
        """The fewest parameters of a URL that `from_query` reads as this filter."""
        query = {name: str(value) for name, value in self._named if value is not None}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def but(self, **changes: Any) -> JobFilter:
        """A copy of this filter with some conditions changed; None removes a condition."""
        return replace(self, **changes)

    def without(self, name: str) -> JobFilter:
        """A copy of this filter without one of its `terms`."""
        if search_terms.is_argument(name):
            return self.but(args=tuple(one for one in self.args if one.name != name))
        if name == "workflow":  # a step is one of a workflow
            return self.but(workflow=None, step=None)
        return self.but(**{name: None})

    @property
    def terms(self) -> dict[str, str]:
        """The conditions as a person types them into the search box. Without `state`, which has tabs."""
        pairs = (pair for pair in self._named if pair[0] != "state" and pair[1] is not None)
        return {name: search_terms.write_term(name, value) for name, value in pairs}

    @property
    def text(self) -> str:
        """The text that the search box shows."""
        return " ".join(self.terms.values())

    @property
    def arguments(self) -> str:
        """The text of the box that takes only arguments, without the prefix `args.`."""
        return " ".join(search_terms.write_term(".".join(one.path), one) for one in self.args)

    @property
    def conditions(self) -> str:
        """A text that is equal for filters with the same conditions. A cursor is valid only for its text."""
        return repr([(name, str(value)) for name, value in self._named if value is not None])

    @property
    def is_search(self) -> bool:
        """Whether no index has these jobs in the order of a list: then a limited number is examined."""
        return bool(self.args or self.tag or self.error or self.names_jobs or self.is_by_attempts)

    @property
    def names_jobs(self) -> bool:
        """Whether it names a job, a workflow, a batch, a worker or an incident: their jobs have an index."""
        names = (self.id, self.workflow, self.batch, self.worker, self.incident)
        return any(name is not None for name in names)

    @property
    def is_by_attempts(self) -> bool:
        """Whether it is about an attempt: `failure:`, `death:` or `deploy:`."""
        return any(one is not None for one in (self.failure, self.death, self.deploy))

    @property
    def needs_payload(self) -> bool:
        """Whether it searches the payload, which needs the permission `payload.view`."""
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
        problem = f"there is no {qualifier} {value[:40]!r}; known are {', '.join(known)}"
        raise BadFilter(qualifier, problem)
    return value


def _created(value: str) -> Created:
    span = _SPAN.fullmatch(value.replace(" ", ""))
    if span is None:
        raise BadFilter(
            "created", f"{value[:40]!r} is not a duration; write <2h or >3d, with s, m, h or d"
        )
    return Created(span[1] == "<", int(span[2]), span[3])


def _id(value: str) -> int:
    found = search_terms.read_job_id(value.strip())
    if found is None:
        raise BadFilter("id", f"{value[:40]!r} is neither a job's id nor an RQ id")
    return found


def _group(qualifier: str, value: str) -> int | str:
    """The id of a workflow or batch, from a text such as `7` or `workflow/7`; another text is a name."""
    text = value.strip()
    number = search_terms.read_own(text.removeprefix(f"{qualifier}/"))
    return search_terms.check_text(qualifier, text) if number is None else number


def _own(qualifier: str, what: str, value: str) -> int:
    """The id of a failure or an incident, from a text such as `58` or `failure/58`."""
    found = search_terms.read_own(value.strip().removeprefix(f"{qualifier}/"))
    if found is None:
        raise BadFilter(qualifier, f"{value[:40]!r} is no id of {what}; write {qualifier}:58")
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
    "workflow": lambda value: _group("workflow", value),
    "step": lambda value: search_terms.check_text("step", value),
    "batch": lambda value: _group("batch", value),
    "failure": lambda value: _own("failure", "a failure", value),
    "death": lambda value: _one_of("death", value.strip().replace(" ", "_"), tuple(DEATHS)),
    "deploy": lambda value: search_terms.check_text("deploy", value),
    "worker": lambda value: search_terms.check_text("worker", value),
    "incident": lambda value: _own("incident", "an incident", value),
    "limit": _limit,
}
