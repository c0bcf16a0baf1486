"""Holds a cron entry as code or an operator declares it: task, arguments, schedule and two policies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DeclarationError, InvalidArgs
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.options import fault_of_name
from .expression import BadSchedule, Schedule, read_schedule
from .lifecycle import OVERLAPS

# The upper bound of OPSJOBS_MAX_ARGS_BYTES. The host's own setting is checked when a job is enqueued.
_LARGEST_ARGS = 100_000_000
MOST_CAUGHT_UP = 1_000

CatchUp = str | int
Faults = Sequence[tuple[str, str]]


class BadEntry(DeclarationError):
    """An invalid entry. `faults` are pairs: the parameter, and a sentence about it."""

    def __init__(self, name: object, faults: Faults) -> None:
        self.faults = faults
        super().__init__(f"cron entry {name}: " + "; ".join(sentence for _, sentence in faults))


@dataclass(frozen=True)
class EntryDeclaration:
    """What an entry is declared to do.

    `catch_up_limit` is set when `catch_up` is `all`. `args` are as stored.
    """

    name: str
    task: str
    schedule: Schedule
    overlap: str
    catch_up: str
    catch_up_limit: int | None
    args: Mapping[str, Any]

    @property
    def columns(self) -> dict[str, Any]:
        """The values of the row's columns, except its name."""
        return {
            "task": self.task,
            "expression": self.schedule.expression,
            "zone": self.schedule.zone,
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "catch_up_limit": self.catch_up_limit,
            "args": dict(self.args),
        }

    @property
    def params(self) -> dict[str, Any]:
        """The values as an operator gives them: `catch_up` is a word, or how many missed slots run."""
        columns = self.columns
        limit = columns.pop("catch_up_limit")
        return columns if limit is None else {**columns, "catch_up": limit}

    @classmethod
    def from_params(cls, name: str, params: Mapping[str, Any]) -> EntryDeclaration:
        """The declaration of an entry with these `params`, which are valid."""
        schedule = Schedule(params["expression"], params["zone"])
        limit = _limit_of(params["catch_up"])
        word = params["catch_up"] if limit is None else "all"
        return cls(name, params["task"], schedule, params["overlap"], word, limit, params["args"])


def make_entry(
    task: TaskDeclaration,
    expression: str,
    *,
    zone: str = "UTC",
    overlap: str = "skip",
    catch_up: CatchUp = "none",
    args: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> EntryDeclaration:
    """Make the entry, without the values of redacted parameters.

    Raises `BadEntry` with every fault and its fix.
    """
    named = task.name if name is None else name
    faults = [("name", fault)] if (fault := fault_of_name("its name", named)) else []
    faults += list_faults(expression, zone, overlap, catch_up)
    stored: Any = {}
    try:
        stored = json.loads(_stored(task, {} if args is None else args))
    except InvalidArgs as wrong:
        faults.append(("args", str(wrong)))
    except TypeError:
        faults.append(("args", f"args must be a dict of arguments, got {type(args).__name__}"))
    if faults:
        raise BadEntry(named, faults)
    limit = _limit_of(catch_up)
    word = str(catch_up) if limit is None else "all"
    schedule = read_schedule(expression, zone)
    return EntryDeclaration(named, task.name, schedule, overlap, word, limit, stored)


def list_faults(expression: object, zone: object, overlap: object, catch_up: object) -> Faults:
    """What is wrong with an entry's schedule and policies, whatever its task."""
    faults = list(_faults_of_policies(overlap, catch_up))
    try:
        read_schedule(expression, zone)
    except BadSchedule as wrong:
        return [*wrong.faults, *faults]
    return faults


def _stored(task: TaskDeclaration, args: Mapping[str, Any]) -> bytes:
    if not isinstance(args, Mapping):
        raise TypeError
    return task.arguments.dump(task.arguments.validate((), args), _LARGEST_ARGS)


def _faults_of_policies(overlap: object, catch_up: object) -> Iterator[tuple[str, str]]:
    if not isinstance(overlap, str) or overlap not in OVERLAPS:
        yield "overlap", f"overlap must be one of {', '.join(OVERLAPS)}, got {overlap!r}"
    limit = _limit_of(catch_up)
    if catch_up not in ("none", "latest") and limit is None:
        yield (
            "catch_up",
            "catch_up must be 'none', 'latest', or how many of all that were missed, "
            f"from 1 to {MOST_CAUGHT_UP}; got {catch_up!r}",
        )
    if overlap == "cancel_previous" and limit is not None and limit > 1:
        yield (
            "catch_up",
            f"catch_up={limit} with overlap='cancel_previous' would cancel all but the last at once: "
            "say 'latest'",
        )


def _limit_of(catch_up: object) -> int | None:
    if isinstance(catch_up, bool) or not isinstance(catch_up, int):
        return None
    return catch_up if 1 <= catch_up <= MOST_CAUGHT_UP else None
