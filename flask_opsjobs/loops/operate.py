"""Runs the operate loop: it changes the jobs of operations, chunk by chunk, and expires drafts."""

from __future__ import annotations

import contextvars
import threading
from datetime import datetime

import psycopg
from typing_extensions import override

from ..core.db import is_away
from ..core.words import counted
from ..host import Host
from ..jobs.perform import describe_error
from ..operations import transitions as operation_transitions
from ..operations.operate import OperationTurn, make_turn
from .loop import IDLE, Loop, Pass, every

# So many operations get a turn in a pass. Those behind them get theirs in the next ones, which follow at
# once.
_MOST = 100
# While an operation waits for its jobs, the next pass comes so soon, since a prefetch of short jobs is used
# up at once. It comes later with each pass that finds nothing to do, up to the second time. Live jobs feel
# each pass, so one does not follow the other at once.
_SOON_SECONDS, _LATER_SECONDS = 0.02, 0.1
# A pass waits so long for one turn, and asks again in the next pass whether it has ended.
_LONGEST_TURN_SECONDS = 5.0


def run(context: Pass) -> str:
    """Give each open operation a turn.

    Not alone: of two copies one has the lock of an operation, and the other leaves that operation out.
    """
    report: list[str] = []
    if expired := operation_transitions.expire_drafts(context.connection, context.now):
        report.append(f"{counted(expired, 'draft')} expired")
    handled, waits = 0, context.memory.pop("waits", False)
    operations = operation_transitions.list_open(
        context.connection, context.memory.pop("after", 0), _MOST + 1
    )
    for operation in operations[:_MOST]:
        turn = _try_turn(context, operation, report)
        if turn is None:
            continue
        handled += turn.handled
        if turn.has_more:
            context.again()
        waits = waits or turn.operation.state == "running"
        if turn.moved in ("paused", "resumed", "stopped", "finished"):
            report.append(f"operation {operation} {turn.moved}")
    if len(operations) > _MOST:
        context.memory |= {"after": operations[_MOST - 1], "waits": waits}
        context.again()
    idle = context.memory["idle"] = 0 if handled else context.memory.get("idle", 0) + 1
    if waits:
        context.sooner(min(_LATER_SECONDS, _SOON_SECONDS * (idle + 1)))
    if handled:
        report.insert(0, f"changed {counted(handled, 'job')} of operations")
    return ", ".join(report) or IDLE


class TurnThread(threading.Thread):
    """Makes one turn of an operation, on a connection and in a thread of its own.

    A turn asks the host's access policy, which may hang. Then the pass goes on to the next operation. After
    10 s Postgres ends the session of this thread, which lets go of the operation and of its jobs.
    """

    def __init__(self, host: Host, operation: int, now: datetime) -> None:
        super().__init__(name=f"opsjobs-operation-{operation}", daemon=True)
        self._host = host
        self._operation = operation
        self._now = now
        # The policy finds the app in its context, as in a request.
        self._context = contextvars.copy_context()
        self.turn: OperationTurn | None = None
        self.error: Exception | None = None

    @override
    def run(self) -> None:
        self._context.run(self._make)

    def _make(self) -> None:
        try:
            with self._host.spare.one() as connection:
                self.turn = make_turn(connection, self._host, self._operation, self._now)
        except Exception as error:
            self.error = error


def _try_turn(context: Pass, operation: int, report: list[str]) -> OperationTurn | None:
    """Make a turn of one operation. What goes wrong there does not keep the others from theirs."""
    late: dict[int, TurnThread] = context.memory.setdefault("late", {})
    thread = late.pop(operation, None)
    if thread is None:
        thread = TurnThread(context.host, operation, context.now)
        thread.start()
        thread.join(_LONGEST_TURN_SECONDS)
    if thread.is_alive():
        late[operation] = thread
        says = f"operation {operation} waits: its turn takes over {_LONGEST_TURN_SECONDS:g} s"
        context.fail(says, TimeoutError("does the access policy answer?"))
        return None
    if (error := thread.error) is None:
        return thread.turn
    if isinstance(error, psycopg.errors.LockNotAvailable):
        report.append(f"operation {operation} waits for a locked job")
        return None
    if is_away(error) and not isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
        raise error
    context.fail(f"operation {operation}: {describe_error.one_line(error)}", error)
    return None


LOOP = Loop("operate", every(1), run, is_alone=False)
