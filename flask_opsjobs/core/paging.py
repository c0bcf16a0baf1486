"""Cuts a page out of a list that was read whole, and names what an address says of a place in a list."""

from __future__ import annotations

from collections.abc import Sequence

# The parameters of a list that are no part of its search: where a page begins, whether all jobs are selected,
# and the row that is shown beside the list.
PLACES = ("before", "after", "selected", "row")


def cut_page(
    ids: Sequence[int], limit: int, *, before: int | None = None, after: int | None = None
) -> tuple[int, int]:
    """Where a page begins and ends: behind the row with the id `before`, or in front of that with `after`.

    The first page without them, and when that row is no longer in the list.

    >>> cut_page([5, 9, 2, 7], 2, before=9), cut_page([5, 9, 2, 7], 2, after=2), cut_page([5], 2, before=3)
    ((2, 4), (0, 2), (0, 1))
    """
    begin = 0
    if before in ids:
        begin = ids.index(before) + 1
    elif after in ids:
        begin = max(ids.index(after) - limit, 0)
    return begin, min(begin + limit, len(ids))
