"""Finds what runs and batches do not tell: what a silent loop has not seen yet, and ends before the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ..batches.queries import BatchRow, CallbackOfBatch
from ..lifeline.loop_runs import find_loop
from ..workflows.queries import CallbackRow, RunRow
from .bundle import Expected, Inquiry, WatchedSpan


def watch_backlog(inquiry: Inquiry, loop: str, lacks: str, since: datetime) -> WatchedSpan:
    """What is not known since the last pass of this loop: `lacks`.

    It is for loops such as `roll_up` and `advance`, of which a pass finds in the tables all that happened
    before it. So a silence that has ended hides nothing.
    """
    row = find_loop(inquiry.session, inquiry.now, loop)
    begin = since if row is None else max(since, row.last_at)
    return WatchedSpan(loop, lacks, begin, inquiry.now)


def expect_earlier_ends(
    row: RunRow | BatchRow, callbacks: Sequence[CallbackRow | CallbackOfBatch]
) -> Iterator[Expected]:
    """The ends before the last one: only a callback that reported an end still tells when it was."""
    earlier = row.end_no - (row.ended_at is not None)
    if earlier > 0:
        reported = {each.end_no for each in callbacks if each.created_at is not None}
        yield Expected(
            "when it ended before it was reopened: only its last end is stored",
            is_found=all(number in reported for number in range(1, earlier + 1)),
            since=row.created_at,
        )
