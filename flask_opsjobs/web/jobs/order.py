"""Answers the heads of the list of jobs, as `ListOrder` does those of other lists: each has one direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import url_for

from ...jobs.search.filter import SORTS, JobFilter
from ...jobs.search.queries import say_why_unordered

# The orders by the columns of the list. Without one the newest job comes first.
_SORTS: Mapping[str, str] = {sort.removeprefix("-"): sort for sort in SORTS}


@dataclass(frozen=True)
class JobListOrder:
    """The order of the list of jobs. `is_in_order` is False when it could not be ordered so."""

    wanted: JobFilter
    is_in_order: bool
    may_sort: bool

    @property
    def refused(self) -> Mapping[str, str]:
        """Why the list cannot be ordered by these columns now."""
        return {} if self.may_sort else dict.fromkeys(_SORTS, say_why_unordered())

    def url(self, column: str) -> str:
        """The address of the list in the order of this column."""
        narrow = self.wanted.but(sort=_SORTS.get(column))
        return url_for("opsjobs.jobs", **narrow.to_query())  # type: ignore[arg-type]

    def direction(self, column: str) -> str | None:
        """The value of `aria-sort`; None when the list is not ordered by this column."""
        sort = self.wanted.sort if self.is_in_order else None
        if _SORTS.get(column) != sort:
            return None
        return "ascending" if sort == column else "descending"
