"""Runs the operate loop: it changes the jobs of operations, chunk by chunk, and expires drafts."""

from __future__ import annotations

import psycopg

from ..core.db import is_away
from ..core.words import counted
from ..jobs.perform import describe_error
from ..operations import transitions as operation_transitions
from ..operations.operate import OperationTurn, make_turn
from .loop import IDLE, Loop, Pass, every

# So many operations get a turn in a pass.
_MOST = 100
# While an operation waits for its jobs, the next pass comes so soon: a prefetch is used up quickly.
_SOON_SECONDS = 0.1


def run(context: Pass) -> str:
    """Give each open operation a turn.

    Not alone: of two copies one has the lock of an operation, and the other leaves that operation out.
    """
    report: list[str] = []
    if expired := operation_transitions.expire_drafts(context.connection, context.now):
        report.append(f"{counted(expired, 'draft')} expired")
    handled = 0
    for operation in operation_transitions.list_open(context.connection, _MOST):
        turn = _try_turn(context, operation, report)
        if turn is None:
            continue
        handled += turn.handled
        if turn.has_more:
            context.again()
        if turn.operation.state == "running":
            context.sooner(_SOON_SECONDS)
        if turn.moved in ("paused", "resumed", "stopped", "finished"):
            report.append(f"operation {operation} {turn.moved}")
    if handled:
        report.insert(0, f"changed {counted(handled, 'job')} of operations")
    return ", ".join(report) or IDLE


def _try_turn(context: Pass, operation: int, report: list[str]) -> OperationTurn | None:
    """Make a turn of one operation. What goes wrong there does not keep the others from theirs."""
    connection = context.connection
    try:
        return make_turn(connection, context.host, operation, context.now)
    except psycopg.errors.LockNotAvailable:
        report.append(f"operation {operation} waits for a locked job")
    except Exception as error:
        if is_away(error) or connection.closed or connection.broken:
            raise
        context.fail(f"operation {operation}: {describe_error.one_line(error)}", error)
    return None


LOOP = Loop("operate", every(1), run, is_alone=False)
