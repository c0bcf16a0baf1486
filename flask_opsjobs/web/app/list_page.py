"""Cuts a long list that was read whole into pages, and finds rows by a part of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flask import request, url_for

from . import problems

Row = TypeVar("Row")
_LONGEST_SEARCH = 200


@dataclass(frozen=True)
class PlaceInList:
    """What of a list the address asks for: the rows with `find` in their names, after so many of them."""

    find: str
    after: int

    @property
    def query(self) -> Mapping[str, str]:
        """The part of a query string that says the same."""
        after = {"after": str(self.after)} if self.after else {}
        return {**self.search, **after}

    @property
    def search(self) -> Mapping[str, str]:
        """The part of it that finds, for the links of heads: these begin with the first row."""
        return {"find": self.find} if self.find else {}


@dataclass(frozen=True)
class ListPage(Generic[Row]):
    """The `rows` of a page, and how many rows were found in all.

    `next_url` leads to the rows after them, `first_url` to the first ones, and `last_url` to the last ones
    from a page that begins after them; None where there are none.
    """

    rows: Sequence[Row]
    after: int
    found: int
    next_url: str | None
    first_url: str | None
    last_url: str | None


def read_list_place() -> PlaceInList:
    """Read `find` and `after`. Raises `Problem` for a text that is too long, and for what is no number."""
    text = request.args.get("find", "").strip()
    if len(text) > _LONGEST_SEARCH or "\0" in text:
        raise problems.unreadable(f"find: a name has at most {_LONGEST_SEARCH} characters.")
    after = request.args.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 6):
        raise problems.unreadable(f"after: {after[:40]!r} is no number of rows.")
    return PlaceInList(text, int(after))


def cut_list(
    rows: Sequence[Row],
    name: Callable[[Row], str],
    place: PlaceInList,
    most: int,
    query: Mapping[str, str],
) -> ListPage[Row]:
    """The page of `rows` at this place, with at most so many of them. `query` is the rest of the address."""
    found = [row for row in rows if place.find.lower() in name(row).lower()]
    end = place.after + most
    last = (len(found) - 1) // most * most
    return ListPage(
        found[place.after : end],
        place.after,
        len(found),
        _link({**query, "after": str(end)}) if end < len(found) else None,
        _link(query) if place.after else None,
        _link({**query, "after": str(last)}) if 0 < len(found) <= place.after else None,
    )


def _link(query: Mapping[str, str]) -> str:
    values: dict[str, Any] = dict(query)
    return url_for((request.endpoint or "").removesuffix("_live"), **values)
