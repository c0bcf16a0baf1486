"""Runs the fold loop: it counts the members of batches, and ends batches that no worker ended."""

from __future__ import annotations

from ..core.words import counted
from ..endings.fold import list_batches_to_fold
from ..endings.pending_batches import PendingBatches
from .advance_listed import advance_listed
from .loop import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Fold batches whose members were added or ended, that were canceled, or that have no open member.

    Not alone: of two copies, one takes the lock of a batch, and the other skips that batch.
    """
    found = advance_listed(context, PendingBatches, list_batches_to_fold)
    return f"folded {counted(found, 'batch', 'batches')}" if found else IDLE


LOOP = Loop("fold", every(1), run, is_alone=False)
