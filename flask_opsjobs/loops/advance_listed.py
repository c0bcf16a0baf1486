"""Makes a pass of the loops `advance` and `fold`: advances what a statement lists, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..core.db import Connection
from ..endings.pending import Pending
from ..host import DueLane, Host
from .loop import Pass

_MOST = 100
_TURN_SECONDS = 1.0

# Lists the ids of runs or batches: at most so many after this one, in id order.
Listing = Callable[[Connection, int, int], Sequence[int]]


def advance_listed(context: Pass, make: Callable[[], Pending], listing: Listing) -> int:
    """Advance the runs or batches that are listed, and dispatch what this released; returns their number.

    `make` makes the memory of the loop. Each is advanced in a transaction of its own. An error of one is
    logged, and the others are not affected.
    """
    connection, memory = context.connection, context.memory
    if "pending" not in memory:
        memory["pending"] = make()
    pending: Pending = memory["pending"]
    # A full list is continued by the next pass, so that those which cannot be advanced hold up no others.
    found = listing(connection, _MOST, memory.get("after", 0))
    is_full = len(found) == _MOST
    memory["after"] = found[-1] if is_full else 0
    pending.add(found)
    lanes = pending.advance(connection, _TURN_SECONDS)
    if is_full or (pending and pending.due_in() == 0):
        context.again()
    if lanes:
        context.after_commit(partial(_dispatch, context.host, lanes))
    return len(found)


def _dispatch(host: Host, lanes: list[tuple[str, str]]) -> None:
    # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH. It logs an outage of Redis by itself.
    if host.dispatcher is not None:
        host.dispatcher.push([DueLane(*lane) for lane in lanes])
