"""Orders the rows of a list by a column, as the address says: `sort=due`, or `sort=-due` descending."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import request, url_for

from . import problems

Row = TypeVar("Row")
# What a list has of each row in a column; None when it is not known. A text or a number.
Keys = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class ListOrder:
    """The column by which a list is ordered; None is the order in which it is read.

    `query` is the rest of the query string, which the links of its heads keep. `refused` says of some columns
    why the list cannot be ordered by them now.
    """

    column: str | None
    is_descending: bool
    query: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    # The columns that a first press orders from A to Z. The others begin with the largest.
    texts: tuple[str, ...] = ()

    @property
    def sort(self) -> Mapping[str, str]:
        """The order as a part of a query string; empty for the order in which the list is read."""
        return {} if self.column is None else {"sort": _write(self.column, self.is_descending)}

    @property
    def all_query(self) -> Mapping[str, str]:
        """The whole query string: what the fragment of the list needs too."""
        return {**self.query, **self.sort}

    def url(self, column: str) -> str:
        """The address of the list in the order of this column; in its other direction when it has it now."""
        is_descending = column not in self.texts
        if column == self.column:
            is_descending = not self.is_descending
        values = {**(request.view_args or {}), **self.query}
        endpoint = (request.endpoint or "").removesuffix("_live")
        return url_for(endpoint, **values, sort=_write(column, is_descending))

    def direction(self, column: str) -> str | None:
        """The value of `aria-sort`; None when the list is not ordered by this column."""
        if column != self.column:
            return None
        return "descending" if self.is_descending else "ascending"

    def apply(self, rows: Sequence[Row], keys: Keys) -> Sequence[Row]:
        """The rows in this order; those of which nothing is known come last."""
        if self.column is None:
            return rows
        key = keys[self.column]
        known = [row for row in rows if key(row) is not None]
        known.sort(key=key, reverse=self.is_descending)
        return [*known, *(row for row in rows if key(row) is None)]


def read_order(
    columns: Sequence[str] | Keys, query: Mapping[str, str] = {}, texts: Sequence[str] = ("name",)
) -> ListOrder:
    """The order that the address asks for. Raises `Problem` for a column that the list does not have."""
    word = request.args.get("sort", "")
    column = word.removeprefix("-")
    if column and column not in columns:
        known = ", ".join(columns)
        raise problems.unreadable(f"sort: there is no column {column[:40]!r}; known are {known}.")
    return ListOrder(column or None, word.startswith("-"), query, {}, tuple(texts))


def _write(column: str, is_descending: bool) -> str:
    return f"{'-' * is_descending}{column}"
