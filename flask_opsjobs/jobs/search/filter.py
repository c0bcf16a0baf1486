"""Holds the filter of a list of jobs as one frozen value, and converts it from and to a query string."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any

from ..lifecycle import DEATHS, STATES
from . import ranges
from . import terms as search_terms
from .ranges import Moments
from .terms import Argument, BadFilter, Pattern, Term

# The qualifiers of which a filter has at most one value: each is a field of `JobFilter`.
PLAIN = (
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
TIMES = ("created", "due", "started", "ended")
AMOUNTS: dict[str, Callable[[str, str], ranges.Amounts]] = {
    "duration": ranges.read_duration,
    "wait": ranges.read_duration,
    "attempts": ranges.read_number,
    "priority": ranges.read_priority,
    "memory": ranges.read_size,
}
QUALIFIERS = (*PLAIN, *TIMES[1:], *AMOUNTS, "zone")
# Those whose value may have a `*`.
NAMES = ("queue", "task", "tag", "workflow", "step", "batch", "deploy", "worker")
# Those that a job can meet several times: a second one is a further condition.
_REPEATED = ("tag", "error", "created")
ORIGINS = ("opsjobs", "rq")
LIMITS = (25, 50, 100)
# The orders of a list, `-` for a descending one, and what comes first; without one it is the newest job.
SORTS = {
    "due": "oldest due",
    "-run": "longest run",
    "-wait": "longest wait",
    "-attempts": "most attempts",
}
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?")
_MOST_ARGUMENTS = 8
_MOST_TEXTS = 8
_MOST_IDS = 500
# The parameters of a list that are no part of its search: where a page begins, and whether all are selected.
PLACES = ("before", "after", "selected")
# What is no condition on a job.
_OF_THE_WHOLE = ("limit", "sort", "zone")


class Ids(tuple[int, ...]):
    """The ids of several jobs, written as `41,42`."""

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(map(str, self))


@dataclass(frozen=True)
class Condition:
    """One condition on a job: the value of a qualifier, or anything but it."""

    name: str
    value: Any
    is_not: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it can be a field of a filter."""
        is_known = self.name in PLAIN or search_terms.is_argument(self.name)
        return is_known and not (self.is_not or isinstance(self.value, Pattern))

    @property
    def has_index(self) -> bool:
        """Whether an index finds its jobs in any order: those of a tag, an argument or ids."""
        is_indexed = self.name in ("tag", "id") or search_terms.is_argument(self.name)
        return is_indexed and self.is_plain

    @property
    def needs_payload(self) -> bool:
        """Whether it searches the payload."""
        return self.name == "error" or search_terms.is_argument(self.name)

    def __str__(self) -> str:
        return f"{'-' * self.is_not}{write_condition(self.name, self.value)}"


# At least one of its conditions must be met.
Clause = tuple[Condition, ...]


@dataclass(frozen=True)
class JobFilter:
    """The conditions on jobs, their order, and the size of a page. Links of a list are made with `but(…)`.

    >>> JobFilter(state="failed", queue="mail").terms
    {'queue': 'queue:mail'}
    >>> JobFilter.from_query([("q", "state:failed queue:mail")]) == JobFilter(state="failed", queue="mail")
    True
    >>> JobFilter.from_query([("q", "refused OR tag:eu -queue:mail attempts:>=3")]).text
    'error:refused OR tag:eu -queue:mail attempts:>=3'
    """

    state: str | None = None
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    error: str | None = None
    created: Moments | None = None
    origin: str | None = None
    id: int | Ids | None = None
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
    # What no field above can hold: a range, a pattern, a second value, `-term`, terms joined by OR.
    further: tuple[Clause, ...] = ()
    # The time zone of the times that are searched; None is UTC.
    zone: str | None = None
    sort: str | None = None
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, pairs: Iterable[tuple[str, str]]) -> JobFilter:
        """The filter from the pairs of a query string. Empty values count as absent.

        `q` is the text of the search box; its qualifiers mean the same as the parameters of these names.
        `args` is the text of a box that takes only arguments. The parameter `zone` counts when the box has
        none. Raises `BadFilter` at the first term that is unknown, malformed or contradicts another.
        """
        found: dict[str, Any] = {}
        further: dict[Clause, None] = {}
        fields = [pair for pair in pairs if pair[1] and pair[0] not in PLACES]
        for terms in _clauses(fields):
            clause = tuple(_read(term) for term in terms)
            first = clause[0]
            for one, term in zip(clause, terms, strict=True):
                if one.name in _OF_THE_WHOLE and (len(clause) > 1 or one.is_not):
                    raise BadFilter(one.name, "is one of the whole search", term.place)
            if len(clause) == 1 and (first.is_plain or first.name in _OF_THE_WHOLE):
                if found.setdefault(first.name, first.value) == first.value:
                    continue
                if first.name not in _REPEATED:
                    problem = f"is both {found[first.name]} and {first.value}; say it once"
                    raise BadFilter(first.name, problem, terms[0].place)
            further[clause] = None
        for name, value in fields:
            if name == "zone":
                found.setdefault("zone", _zone(value))
        args = tuple(found.pop(name) for name in sorted(found) if search_terms.is_argument(name))
        made = cls(args=args, further=tuple(further), **found)
        made._require_few()
        return made if made._needs_zone else made.but(zone=None)

    def _require_few(self) -> None:
        if len(self.args) > _MOST_ARGUMENTS:
            raise BadFilter("args", f"at most {_MOST_ARGUMENTS} arguments can be searched at once")
        if self.step is not None and self.workflow is None:
            raise BadFilter("step", "needs the workflow too, such as workflow:7 step:notify")
        if len(self.texts) > _MOST_TEXTS:
            raise BadFilter("error", f"at most {_MOST_TEXTS} texts can be searched at once")

    def to_query(self) -> dict[str, str]:
        """The fewest parameters of a URL that `from_query` reads as this filter."""
        query = {name: _quote(name, value) for name, value in self._named if value is not None}
        if self.further:
            query["q"] = self.rest
        query |= {name: word for name in ("zone", "sort") if (word := getattr(self, name))}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def to_options(self) -> list[str]:
        """The options of `flask opsjobs jobs` that mean this filter."""
        query = self.to_query()
        given = {"search": self.box} | {name: query.get(name) for name in ("sort", "limit")}
        return [f"--{name}={value}" for name, value in given.items() if value]

    def but(self, **changes: Any) -> JobFilter:
        """A copy of this filter with some conditions changed; None removes a condition."""
        return replace(self, **changes)

    def dated(self, now: datetime) -> JobFilter:
        """A copy of this filter with the dates of its days, such as `today`."""

        def date(name: str, value: Any) -> Any:
            return value.dated(now, self.tzinfo) if name in TIMES and value else value

        further = (
            tuple(replace(one, value=date(one.name, one.value)) for one in clause)
            for clause in self.further
        )
        return self.but(created=date("created", self.created), further=tuple(further))

    def without(self, name: str) -> JobFilter:
        """A copy of this filter without one of its `terms`."""
        further = tuple(one for one in self.further if write_clause(one) != name)
        if further != self.further:
            return self.but(further=further)
        if search_terms.is_argument(name):
            return self.but(args=tuple(one for one in self.args if one.name != name))
        if name == "workflow":  # a step is one of a workflow
            return self.but(workflow=None, step=None)
        return self.but(**{name: None})

    @property
    def terms(self) -> dict[str, str]:
        """The conditions as a person types them into the search box. Without `state`, which has tabs."""
        pairs = (pair for pair in self._named if pair[0] != "state" and pair[1] is not None)
        found = {name: write_condition(name, value) for name, value in pairs}
        found |= {text: text for text in map(write_clause, self.further)}
        return found if self.zone is None else found | {"zone": f"zone:{self.zone}"}

    @property
    def text(self) -> str:
        """The text that the search box shows."""
        return " ".join(self.terms.values())

    @property
    def box(self) -> str:
        """The whole search as it can be typed into the box, with its state."""
        return f"state:{self.state} {self.text}".strip() if self.state else self.text

    @property
    def rest(self) -> str:
        """The further conditions as the search box shows them."""
        return " ".join(map(write_clause, self.further))

    @property
    def arguments(self) -> str:
        """The text of the box that takes only arguments, without the prefix `args.`."""
        return " ".join(search_terms.write_term(".".join(one.path), one) for one in self.args)

    @property
    def conditions(self) -> str:
        """A text that is equal for filters with the same conditions. A cursor is valid only for its text."""
        return repr(sorted(self.but(limit=LIMITS[0]).to_query().items()))

    @property
    def is_search(self) -> bool:
        """Whether no index has these jobs in the order of a list: then a limited number is examined."""
        has_index = self.is_by_values or self.error or self.names_jobs or self.is_by_attempts
        return bool(has_index or self.further)

    @property
    def names_jobs(self) -> bool:
        """Whether it names a job, a workflow, a batch, a worker or an incident: their jobs have an index."""
        names = (self.id, self.workflow, self.batch, self.worker, self.incident)
        return any(name is not None for name in names)

    @property
    def is_of_group(self) -> bool:
        """Whether it names a workflow or a batch, by its id or its name."""
        return self.workflow is not None or self.batch is not None

    @property
    def is_by_attempts(self) -> bool:
        """Whether it is about an attempt: `failure:`, `death:` or `deploy:`."""
        return any(one is not None for one in (self.failure, self.death, self.deploy))

    @property
    def is_by_values(self) -> bool:
        """Whether it asks for tags, arguments or one of these: an index finds their jobs in any order."""
        return bool(self.tag or self.args or self.indexed_clauses)

    @property
    def needs_payload(self) -> bool:
        """Whether it searches the payload, which needs the permission `payload.view`."""
        return any(one.needs_payload for one in self.every_condition)

    @property
    def plain(self) -> Iterator[Condition]:
        """The conditions that are fields of it. All must be met."""
        return (Condition(name, value) for name, value in self._named if value is not None)

    @property
    def every_condition(self) -> Iterator[Condition]:
        """Each condition of it, also those of which only one must be met and those that must not."""
        yield from self.plain
        yield from (condition for clause in self.further for condition in clause)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that are searched in errors, each once."""
        found = (one.value for one in self.every_condition if one.name == "error")
        return tuple(dict.fromkeys(found))

    @property
    def indexed_clauses(self) -> tuple[Clause, ...]:
        """The further conditions that are tags, arguments or ids: an index finds their jobs."""
        return tuple(one for one in self.further if all(each.has_index for each in one))

    @property
    def tzinfo(self) -> tzinfo:
        """The time zone of the times that are searched."""
        return (ranges.read_zone(self.zone) if self.zone else None) or UTC

    @property
    def _needs_zone(self) -> bool:
        times = (one.value for one in self.every_condition if one.name in TIMES)
        return any(one.needs_zone for one in times)

    @property
    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, getattr(self, name)) for name in PLAIN)
        yield from ((argument.name, argument) for argument in self.args)


def write_clause(clause: Clause) -> str:
    """The clause as a person types it into the search box."""
    return " OR ".join(map(str, clause))


def write_condition(name: str, value: Any) -> str:
    """The value of a qualifier as a person types it into the search box, so that it is read as this value."""
    return search_terms.write_term(name, _quote(name, value))


def _quote(name: str, value: Any) -> str:
    """The value as a parameter of a URL.

    A text with quotation marks is in quotes, and a name or an error with a `*`, since it is no pattern.
    """
    is_text = isinstance(value, str)
    has_star = name in (*NAMES, "error") and "*" in str(value)
    is_misleading = is_text and ('"' in value or has_star)
    return search_terms.quote(value) if is_misleading else str(value)


def _clauses(pairs: Iterable[tuple[str, str]]) -> Iterator[list[Term]]:
    for name, value in pairs:
        if name == "q":
            yield from search_terms.split_clauses(value)
        elif name == "args":
            yield from map(_make_arguments, search_terms.split_clauses(value))
        elif name != "zone":
            yield [search_terms.read_field(name, value)]


def _make_arguments(clause: list[Term]) -> list[Term]:
    if unnamed := [term.value for term in clause if not term.name]:
        raise BadFilter("args", f"what is {unnamed[0][:40]!r}? Write name:value")
    names = (f"args.{term.name.removeprefix('args.')}" for term in clause)
    return [replace(term, name=name, place=None) for term, name in zip(clause, names, strict=True)]


def _read(term: Term) -> Condition:
    name = term.name or "error"
    try:
        return Condition(name, _parse(name, term), term.is_not)
    except BadFilter as error:
        error.place = error.place or term.place
        raise


def _parse(name: str, term: Term) -> Any:
    if search_terms.is_argument(name):
        return search_terms.read_argument(term)
    if name in NAMES and "*" in term.value and not term.is_quoted:
        return Pattern(search_terms.check_text(name, term.value))
    if name == "error" and "*" in term.value and not term.is_quoted:
        problem = "leave out the *, since parts of words are found too. In quotes it is searched"
        raise BadFilter(name, problem)
    if name in TIMES:
        return ranges.read_moments(name, term.value)
    if name in AMOUNTS:
        return AMOUNTS[name](name, term.value)
    if _TIME_OF_DAY.fullmatch(f"{name}:{term.value}"):  # such as created:>2026-11-27 14:30
        raise BadFilter(name, f"cannot be searched; {search_terms.DATE_AND_TIME}")
    if name not in _PARSERS:
        known = ", ".join((*QUALIFIERS, "args.NAME"))
        problem = f"cannot be searched; known are {known}. In quotes it is searched in errors"
        raise BadFilter(name[:40], problem)
    return _PARSERS[name](term.value)


def _one_of(qualifier: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        problem = f"there is no {qualifier} {value[:40]!r}; known are {', '.join(known)}"
        raise BadFilter(qualifier, problem)
    return value


def _zone(value: str) -> str:
    if ranges.read_zone(value) is None:
        raise BadFilter("zone", f"{value[:40]!r} is no time zone; write one such as Europe/Berlin")
    return value


def _ids(value: str) -> int | Ids:
    found = []
    for part in value.split(","):
        number = search_terms.read_job_id(part.strip())
        if number is None:
            raise BadFilter("id", f"{part[:40]!r} is neither a job's id nor an RQ id")
        found.append(number)
    if len(found) > _MOST_IDS:
        raise BadFilter("id", f"at most {_MOST_IDS} ids can be searched at once")
    return found[0] if len(found) == 1 else Ids(sorted(set(found)))


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
    "origin": lambda value: _one_of("origin", value, ORIGINS),
    "id": _ids,
    "workflow": lambda value: _group("workflow", value),
    "step": lambda value: search_terms.check_text("step", value),
    "batch": lambda value: _group("batch", value),
    "failure": lambda value: _own("failure", "a failure", value),
    "death": lambda value: _one_of("death", value.strip().replace(" ", "_"), tuple(DEATHS)),
    "deploy": lambda value: search_terms.check_text("deploy", value),
    "worker": lambda value: search_terms.check_text("worker", value),
    "incident": lambda value: _own("incident", "an incident", value),
    "zone": _zone,
    "sort": lambda value: _one_of("sort", value, tuple(SORTS)),
    "limit": _limit,
}
