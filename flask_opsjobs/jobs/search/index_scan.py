"""Chooses the index from which the jobs of a filter are read, and bounds the scan to a range of ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Select, Text, func, literal, tuple_

from ...core.db import LARGEST_ID
from ..lifecycle import UNSUCCESSFUL
from ..models import Job
from .filter import JobFilter

# The conditions that compare a column with a value, in the order in which their indexes are chosen.
PLAIN = ("state", "task", "queue", "origin")

Jobs = TypeVar("Jobs", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True)
class Range:
    """The ids from `low` to below `high`, and further conditions on each row. None is open."""

    low: ColumnElement[int] | None = None
    high: ColumnElement[int] | None = None
    conditions: tuple[ColumnElement[bool], ...] = ()

    def narrowed(self, before: Any, after: int | None) -> Range:
        """The part of the range with ids below `before` and above `after`."""
        made = self
        if after is not None:
            made = replace(made, low=_join(func.greatest, self.low, after + 1))
        if before is not None:
            made = replace(made, high=_join(func.least, self.high, before))
        return made

    @property
    def bounds(self) -> tuple[ColumnElement[int], ColumnElement[int]]:
        """The first id, and the first one after the range."""
        low = literal(0, BigInteger) if self.low is None else self.low
        return low, literal(LARGEST_ID, BigInteger) if self.high is None else self.high


def _join(function: Any, bound: ColumnElement[int] | None, other: Any) -> ColumnElement[int]:
    made: ColumnElement[int] = (
        other if isinstance(other, ColumnElement) else literal(other, BigInteger)
    )
    return made if bound is None else function(bound, made)


def within(found: Range, key: Any = Job.id) -> list[ColumnElement[bool]]:
    """The conditions that a job is in the range. With an expression as `key` no index is used for them."""
    bounds = [] if found.low is None else [key >= found.low]
    bounds += [] if found.high is None else [key < found.high]
    return [*bounds, *found.conditions]


def conditions_of(
    wanted: JobFilter, table: Any = Job, names: tuple[str, ...] = PLAIN
) -> list[ColumnElement[bool]]:
    """The conditions of the filter on the columns `names` of a table or subquery."""
    return [
        getattr(table, name) == value
        for name in names
        if (value := getattr(wanted, name)) is not None
    ]


def is_match(wanted: JobFilter, row: Any) -> bool:
    """Whether a row that was read meets the same conditions."""
    return all(getattr(wanted, name) in (None, getattr(row, name)) for name in PLAIN)


def lead_of(wanted: JobFilter) -> str | None:
    """The leading column of the index to scan, the most selective one; None means the primary key.

    Failed and canceled jobs of one task or queue have indexes of their own. The planner finds them, since
    they begin with the state. Adopted jobs have an index of their own too.
    """
    names = ("state", "task", "queue")
    # Most jobs are finished, so task and queue select fewer; failed and canceled jobs have the indexes above.
    if wanted.state == "finished" or wanted.state in UNSUCCESSFUL:
        names = ("task", "queue", "state")
    return next((name for name in names if getattr(wanted, name)), None)


def indexed_part(wanted: JobFilter) -> JobFilter:
    """The conditions that the scanned index answers. The others filter the rows that were read from it."""
    lead = lead_of(wanted) or "origin"
    known = {lead, "state"} if wanted.state in UNSUCCESSFUL else {lead}
    return wanted.but(**{name: None for name in PLAIN if name not in known})


def scan_index(
    statement: Jobs, wanted: JobFilter, found: Range, *, newest_first: bool = True
) -> Jobs:
    """Add the conditions of the filter and the order of the index to scan to a select of jobs."""
    lead = lead_of(wanted)
    rest = tuple(name for name in PLAIN if name != lead)
    statement = statement.where(*conditions_of(wanted, names=rest))
    keys: list[ColumnElement[Any]] = [Job.id.expression]
    low, high = ([bound] for bound in found.bounds)
    if lead is not None:
        # A range of one value instead of an equality: with an equality, the planner might scan the primary
        # key for the order and read past all other jobs.
        keys.insert(0, getattr(Job, lead).expression)
        for bound in (low, high):
            bound.insert(0, literal(getattr(wanted, lead), Text))
    within = (tuple_(*keys) >= tuple_(*low), tuple_(*keys) < tuple_(*high))
    order = [key.desc() if newest_first else key for key in keys]
    return statement.where(*within, *found.conditions).order_by(*order)
