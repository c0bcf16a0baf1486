"""Declares what a domain offers to the mechanism of actions: its targets, its rows and its actions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NotRequired, Protocol, TypedDict, TypeVar

from ..core import words
from ..core.db import LARGEST_ID, Connection
from ..core.redis_facts import DeliveryPlace, QueueInRedis
from ..host import Host
from ..jobs.record import json_storage
from ..jobs.record.options import LAST_YEAR
from .effects import Effect
from .shapes import Change, Item, Skip


class DecisionRow(Protocol):
    """What a domain reads of a target to decide about it, such as `JobForDecision`."""

    @property
    def target(self) -> str:
        """The target in its canonical form, such as `job/42`."""
        ...

    @property
    def label(self) -> str:
        """The target for people: a job's task, the name of a queue, a cron entry or a limiter."""
        ...


Row = TypeVar("Row", bound=DecisionRow)


class ChangedMeanwhile(Exception):
    """Another transaction committed a conflicting change after the plan was read: plan again."""


class NothingWritten(Exception):
    """A planned change could not be written, and a second try would fail too; the text says why."""


class BadParams(ValueError):
    """Parameters that no target can have. `faults` are pairs: the parameter, and a sentence about it."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(sentence for _, sentence in faults))


def _no_params(request: Request) -> dict[str, Any]:
    return dict(request.params)


def _no_more(_connection: Connection, _request: Request, rows: dict[str, Row]) -> dict[str, Row]:
    return rows


def _no_note(
    _connection: Connection, _request: Request, _rows: Sequence[Row], _sequence: int
) -> None:
    """Nothing names the audit row."""


def _by_targets(request: Request, _rows: Sequence[Row]) -> tuple[str, Collection[str]]:
    return request.action.name, request.targets


@dataclass(frozen=True)
class Action(Generic[Row]):
    """One thing that an operator may do, as a row in the `actions.py` of its domain.

    `sources` are the states in which it is legal. `risk` is a sentence for people. `decide` says what would
    change in a row whose state allows the action, or why it is skipped; it reads nothing. `apply` writes, for
    rows that are locked and were decided. It returns the effects that must follow the commit, and an item for
    each target about which the receipt says more than the plan. `note` writes what names the row of the
    audit; it gets the number of that row, in the same transaction.

    `params` are the names of the values that it asks for. `read_params` gets the request with the values as
    they were given; it makes them canonical, and raises `ValueError` with what is allowed. `read_more` reads
    what else `decide` needs to know of the rows.
    `asks_redis`: what Redis has of its targets is looked up before anything is locked.
    `is_repair`: it repairs a fault, so pages offer it only where it can be done. `answers` tells the repair
    and the targets by which incidents list what it does, when that is not the action on its targets.
    `phrase` is the action as it follows "cannot": `run {} again`. `permission_name` is given by an action
    that has no permission of its own, such as one that takes another one back. `asks` asks for the reason,
    and `about` are the kinds of its targets, when they are of other domains. `unaudited` are the facts that
    only the preview keeps, since the audit is never deleted.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    risk: str
    decide: Callable[[Row, Request], Item | Skip]
    apply: Callable[[Connection, Request, Sequence[Row]], Sequence[Effect | Item]]
    note: Callable[[Connection, Request, Sequence[Row], int], None] = _no_note
    answers: Callable[[Request, Sequence[Row]], tuple[str, Collection[str]]] = _by_targets
    params: tuple[str, ...] = ()
    read_params: Callable[[Request], dict[str, Any]] = _no_params
    read_more: Callable[[Connection, Request, dict[str, Row]], dict[str, Row]] = _no_more
    is_repair: bool = False
    asks_redis: bool = False
    phrase: str = ""
    permission_name: str = ""
    asks: str = "say why"
    about: tuple[str, ...] = ()
    unaudited: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        """The kind of its targets: `job`, `queue`, `batch`, `operation` and so on."""
        return self.name.partition(".")[0]

    @property
    def plural(self) -> str:
        """What several of its targets are called: `jobs`, `cron entries`."""
        plurals = {"cron": "cron entries", "batch": "batches", "delivery": "deliveries"}
        return plurals.get(self.domain, f"{self.domain}s")

    @property
    def short_name(self) -> str:
        """Its name in URLs, commands and functions, such as `retry`."""
        return self.name.partition(".")[2]

    @property
    def is_operable(self) -> bool:
        """Whether an operation can do it: to jobs, without a value, without what only Redis knows."""
        return self.domain == "job" and not self.params and not self.asks_redis

    @property
    def permission(self) -> str:
        """The permission that the access policy is asked for, with the target as subject."""
        return self.permission_name or self.name

    def on(self, name: str) -> str:
        """The action as it follows "cannot": `retry job 7`, `run job 7 again`."""
        return (self.phrase or f"{self.short_name} {{}}").format(name)


class Who(TypedDict):
    """The arguments of a `Request` that say who requests it, by `page`, `cli` or `python`, and why."""

    actor: str
    via: str
    reason: NotRequired[str]
    request_id: NotRequired[str | None]
    is_trusted: NotRequired[bool]


@dataclass(frozen=True)
class Request:
    """What an actor wants done to which targets, why and when. `is_trusted`: the access policy is not asked.

    `now` is the clock of this process until Postgres has told its own. `in_redis` is what Redis said of the
    targets before anything was locked; empty when the action does not ask it.
    """

    host: Host = field(repr=False)
    action: Action[Any]
    targets: tuple[str, ...]
    params: Mapping[str, Any]
    actor: str
    via: str
    reason: str = ""
    request_id: str | None = None
    is_trusted: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    in_redis: Mapping[str, DeliveryPlace | QueueInRedis] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Its targets in a few words, for the audit: `job/42`, `3 jobs`."""
        one, *more = self.targets
        return f"{len(self.targets)} {self.action.plural}" if more else one


class Domain(Protocol[Row]):
    """What each domain's module `actions` has. The registry gathers these modules."""

    ACTIONS: tuple[Action[Row], ...]

    def read_target(self, text: str) -> str | None:
        """The target in its canonical form, such as `job/42`; None when the text is no target."""
        ...

    def lock_rows(self, connection: Connection, request: Request, targets: Collection[str]) -> None:
        """Let nobody else change these targets until the caller commits."""
        ...

    def find_rows(
        self, connection: Connection, request: Request, targets: Collection[str]
    ) -> dict[str, Row]:
        """The rows of the targets that exist, by target. Locks nothing."""
        ...

    def say_unknown(self, target: str) -> str:
        """The sentence about a target that does not exist."""
        ...

    def forbid(self, row: Row, request: Request) -> Skip | None:
        """Why the state of the row forbids the action; None when it allows it."""
        ...

    def list_facts(self, row: Row, now: datetime) -> dict[str, Any]:
        """The values that must not have changed since the preview, as JSON."""
        ...


def make_item(row: DecisionRow, *changes: Change, note: str | None = None) -> Item:
    """The target of this row with what the action changes in it."""
    return Item(row.target, row.label, changes, note)


def make_skip(row: DecisionRow, code: str, says: str) -> Skip:
    """The target of this row as one that the action leaves unchanged, and why."""
    return Skip(row.target, row.label, code, says)


def cannot(row: DecisionRow, request: Request, why: str, code: str = "illegal") -> Skip:
    """The target of this row as one in which the action cannot be done, and why."""
    return make_skip(row, code, say_cannot(request.action, row.target, why))


def say_cannot(action: Action[Any], target: str, why: str) -> str:
    """The sentence why the action cannot be done: `cannot retry job 7: it is started`."""
    return f"cannot {action.on(say_target(target))}: {why}"


def say_target(target: str) -> str:
    """The target as sentences name it: `job 42`."""
    return target.replace("/", " ", 1)


def read_id_target(domain: str, text: str) -> str | None:
    """The target of a domain whose rows have ids in its canonical form, such as `job/42`; None for others."""
    match = re.fullmatch(rf"{domain}/([0-9]{{1,19}})", text)
    return None if match is None or int(match[1]) > LARGEST_ID else f"{domain}/{int(match[1])}"


def name_in(target: str) -> str:
    """The target without its domain: `42`."""
    return target.partition("/")[2]


def moment_in_words(value: datetime | None) -> str | None:
    """A time for people, to the second."""
    return None if value is None else words.moment(value)


def exact(value: datetime | None) -> str | None:
    """A time for comparison, to the microsecond."""
    return None if value is None else value.astimezone(UTC).isoformat()


def read_moment(value: Any) -> str | None:
    """The time as `exact` writes it, given as a datetime with an offset or as ISO 8601, else in UTC.

    None for anything else, and for a time after the year `LAST_YEAR`.
    """
    moment = value
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        if isinstance(moment, datetime) and moment.tzinfo and moment.year <= LAST_YEAR:
            return exact(moment)
    except (ValueError, OverflowError):
        pass
    return None


def whole(value: Any) -> int | None:
    """The number, given as an int or as digits; None for anything else, or for more than nine digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_whole(value: Any, most: int, sentence: str) -> int:
    """The number from 1 to `most`.

    Otherwise raises `ValueError`. Its text is `sentence`, with `{}` replaced by the allowed range.
    """
    number = whole(value)
    if number is None or not 1 <= number <= most:
        allowed = sentence.format(f"a whole number from 1 to {most:,}")
        raise ValueError(f"{allowed}; got {words.show_value(value)}")
    return number


def read_as_json(what: str, value: Any, most: int, setting: str) -> str:
    """The value as JSON text. Forms and commands send text; Python code may send any value."""
    if value in (None, ""):
        return "null"
    try:
        plain = _parse_json(value) if isinstance(value, str) else value
        raw = json_storage.dump(plain)
        json_storage.check_readable(raw)
        json_storage.check_keys(plain)
    except ValueError as why:
        raise ValueError(f'{what} is JSON such as {{"amount": 990}} or "a text": {why}') from None
    if len(raw) > most:
        raise ValueError(f"{what} is {len(raw)} bytes as JSON, more than {setting} = {most}")
    return raw.decode()


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError):
        why = "is nested too deep, or has a number that cannot be read back"
        raise ValueError(why) from None
