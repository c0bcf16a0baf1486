"""Runs the fold loop: it counts the members of batches, and ends batches that no worker ended."""

from __future__ import annotations

from functools import partial

from ..core.words import counted
from ..endings.fold import list_batches_to_fold
from ..endings.pending_batches import PendingBatches
from ..host import DueLane, Host
from .loop import IDLE, Loop, Pass, every

_MOST_BATCHES = 100
_TURN_SECONDS = 1.0


def run(context: Pass) -> str:
    """Fold batches whose members were added or ended, that were canceled, or that have no open member.

    Not alone: of two copies, one takes the lock of a batch, and the other skips that batch. Each batch is
    folded in a transaction of its own. An error of one batch is logged, and the others are not affected.
    """
    host, connection = context.host, context.connection
    pending = context.memory.setdefault("pending", PendingBatches())
    found = list_batches_to_fold(connection, _MOST_BATCHES)
    lanes, has_more = pending.fold(connection, found, _TURN_SECONDS)
    if has_more or len(found) == _MOST_BATCHES:
        context.again()
    if lanes:
        context.after_commit(partial(_dispatch, host, lanes))
    return f"folded {counted(len(found), 'batch', 'batches')}" if found else IDLE


def _dispatch(host: Host, lanes: list[tuple[str, str]]) -> None:
    # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH. It logs an outage of Redis by itself.
    if host.dispatcher is not None:
        host.dispatcher.push([DueLane(*lane) for lane in lanes])


LOOP = Loop("fold", every(1), run, is_alone=False)
