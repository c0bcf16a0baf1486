"""Chooses the one index from which the jobs of a filter are read, and the range of ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Select, Text, literal, tuple_

from ..lifecycle import UNSUCCESSFUL
from ..models import Job
from .filter import JobFilter

LAST_ID = 2**63 - 1
# The conditions that are a column's value, in the order in which their indexes are chosen.
PLAIN = ("state", "task", "queue", "origin")

Jobs = TypeVar("Jobs", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True)
class Range:
    """The ids from `low` to below `high`, and what else must hold of each row."""

    low: int = 0
    high: int = LAST_ID
    conditions: tuple[ColumnElement[bool], ...] = ()

    def narrowed(self, before: int | None, after: int | None) -> Range:
        """The part of it that is older than id `before` and newer than id `after`."""
        low = max(self.low, (after or 0) + 1)
        high = self.high if before is None else min(self.high, before)
        return replace(self, low=low, high=high)


def fits(
    wanted: JobFilter, table: Any = Job, names: tuple[str, ...] = PLAIN
) -> list[ColumnElement[bool]]:
    """That the columns `names` of a table or subquery hold what the filter says of them."""
    return [
        getattr(table, name) == value
        for name in names
        if (value := getattr(wanted, name)) is not None
    ]


def fits_row(wanted: JobFilter, row: Any) -> bool:
    """The same of a row that was read."""
    return all(getattr(wanted, name) in (None, getattr(row, name)) for name in PLAIN)


def lead_of(wanted: JobFilter) -> str | None:
    """The column that the index to walk begins with, that of fewer rows first; None is the primary key.

    Failed and canceled jobs of one task or queue have indexes of their own, which the planner finds, since
    these begin with the one state; so have adopted jobs.
    """
    names = ("state", "task", "queue")
    if (
        wanted.state == "finished" or wanted.state in UNSUCCESSFUL
    ):  # most jobs are; or those indexes
        names = ("task", "queue", "state")
    return next((name for name in names if getattr(wanted, name)), None)


def walked_part(wanted: JobFilter) -> JobFilter:
    """The conditions that the index to walk answers; the others are asked of what was read from it."""
    lead = lead_of(wanted) or "origin"
    known = {lead, "state"} if wanted.state in UNSUCCESSFUL else {lead}
    return wanted.but(**{name: None for name in PLAIN if name not in known})


def walk(statement: Jobs, wanted: JobFilter, found: Range, *, newest_first: bool = True) -> Jobs:
    """Adds to a select of jobs all that must hold, and the order of the index to walk."""
    lead = lead_of(wanted)
    rest = tuple(name for name in PLAIN if name != lead)
    statement = statement.where(*fits(wanted, names=rest))
    keys: list[ColumnElement[Any]] = [Job.id.expression]
    low, high = [[literal(bound, BigInteger)] for bound in (found.low, found.high)]
    if lead is not None:
        # A range of one value and not an equality, which would let the planner take the primary
        # key for the order and read past everything else.
        keys.insert(0, getattr(Job, lead).expression)
        for bound in (low, high):
            bound.insert(0, literal(getattr(wanted, lead), Text))
    within = (tuple_(*keys) >= tuple_(*low), tuple_(*keys) < tuple_(*high))
    order = [key.desc() if newest_first else key for key in keys]
    return statement.where(*within, *found.conditions).order_by(*order)
