"""Cuts a page out of a list that was read whole, in its order."""

from __future__ import annotations

from collections.abc import Sequence


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
