"""Runs the advance loop: it advances runs of workflows that no worker advanced."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from ..core import sql
from ..core.words import counted
from ..endings.advance import list_runs_to_advance, look_for_lost_steps
from ..endings.pending_runs import PendingRuns
from ..workflows.transitions import unmark_late_signals
from .advance_listed import advance_listed
from .loop import IDLE, Loop, Pass, every

# A signal and a wait that is reopened may miss each other, when their transactions run side by side. Each
# pass looks at the newest late signals of this time.
_LATE = timedelta(minutes=10)
_MOST_LATE = 100


def run(context: Pass) -> str:
    """Advance runs whose steps ended, that were canceled, or that have steps which nobody released.

    Not alone: of two copies, one takes the lock of a run, and the other skips that run. Each pass also looks
    at some steps of open runs for those whose jobs were deleted by SQL, and at late signals for which a wait
    is left.
    """
    memory = context.memory
    memory["looked_at"] = look_for_lost_steps(context.connection, memory.get("looked_at", (0, "")))
    unmark_late_signals(context.connection, context.now - _LATE, _MOST_LATE)
    expired = context.connection.execute(
        sql.load("expire_workflows"), {"now": context.now}
    ).rowcount
    make = partial(PendingRuns, context.host.settings.max_args_bytes)
    found = advance_listed(context, make, list_runs_to_advance)
    if not found and not expired:
        return IDLE
    return f"advanced {counted(found, 'workflow')}"


LOOP = Loop("advance", every(1), run, is_alone=False)
