"""Runs the advance loop: it advances runs of workflows that no worker advanced."""

from __future__ import annotations

from functools import partial

from ..core import sql
from ..core.words import counted
from ..endings.advance import list_runs_to_advance
from ..endings.pending_runs import PendingRuns
from ..host import DueLane, Host
from .loop import IDLE, Loop, Pass, every

_MOST_RUNS = 100
_TURN_SECONDS = 1.0


def run(context: Pass) -> str:
    """Advance runs whose steps ended, that were canceled, or that have steps which nobody released.

    Not alone: of two copies, one takes the lock of a run, and the other skips that run. Each run is advanced
    in a transaction of its own. An error of one run is logged, and the others are not affected.
    """
    host, connection = context.host, context.connection
    pending = context.memory.setdefault("pending", PendingRuns(host.settings.max_args_bytes))
    expired = connection.execute(sql.load("expire_workflows"), {"now": context.now}).rowcount
    # A full list is continued by the next pass, so that runs which cannot be advanced hold up no others.
    found = list_runs_to_advance(connection, _MOST_RUNS, context.memory.get("after", 0))
    is_full = len(found) == _MOST_RUNS
    context.memory["after"] = found[-1] if is_full else 0
    pending.add(found)
    lanes = pending.advance(connection, _TURN_SECONDS)
    if is_full or (pending and pending.due_in() == 0):
        context.again()
    if lanes:
        context.after_commit(partial(_dispatch, host, lanes))
    if not found and not expired:
        return IDLE
    return f"advanced {counted(len(found), 'workflow')}"


def _dispatch(host: Host, lanes: list[tuple[str, str]]) -> None:
    # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH. It logs an outage of Redis by itself.
    if host.dispatcher is not None:
        host.dispatcher.push([DueLane(*lane) for lane in lanes])


LOOP = Loop("advance", every(1), run, is_alone=False)
