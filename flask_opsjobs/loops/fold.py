"""Runs the fold loop: it counts the members of batches, and ends batches that no worker ended."""

from __future__ import annotations

from functools import partial

from ..core.words import counted
from ..endings.fold import find_end_of_look, list_batches_to_fold
from ..endings.pending_batches import PendingBatches
from .advance_listed import advance_listed
from .loop import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Fold batches whose members were added or ended, that were canceled, or that have no open member.

    Not alone: of two copies, one takes the lock of a batch, and the other skips that batch. A pass looks
    at 1,000 of the closed batches that have no end events, the next pass at the next ones.
    """
    connection, memory = context.connection, context.memory
    looked_after = memory.get("looked_at", 0)
    listing = partial(list_batches_to_fold, looked_after=looked_after)
    found = advance_listed(context, PendingBatches, listing)
    memory["looked_at"] = find_end_of_look(connection, looked_after)
    return f"folded {counted(found, 'batch', 'batches')}" if found else IDLE


LOOP = Loop("fold", every(1), run, is_alone=False)
