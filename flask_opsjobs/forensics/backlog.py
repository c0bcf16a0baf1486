"""Finds when a loop that makes up for what it missed leaves something unknown: only while it is silent."""

from __future__ import annotations

from datetime import datetime

from ..lifeline.loop_runs import find_loop
from .bundle import Inquiry, WatchedSpan


def watch_backlog(inquiry: Inquiry, loop: str, lacks: str, since: datetime) -> WatchedSpan:
    """What is not known since the last pass of this loop: `lacks`.

    It is for loops such as `roll_up` and `advance`, of which a pass finds in the tables all that happened
    before it. So a silence that has ended hides nothing.
    """
    row = find_loop(inquiry.session, inquiry.now, loop)
    begin = since if row is None else max(since, row.last_at)
    return WatchedSpan(loop, lacks, begin, inquiry.now)
