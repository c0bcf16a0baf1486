"""The cron loop: every slot that has come gets its fate, and its job where it runs; who waits behind is released."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from .. import endings
from ..cron import adopt, transitions
from ..cron.settle import Settled, Settling
from ..cron.transitions import Standing, Unfinished
from ..db import Connection
from ..engine.command import hurry_quietly
from ..jobs.touched import Line
from .one_pass import process_name
from .shape import IDLE, Loop, Pass, count, every

_log = logging.getLogger("flask_opsjobs.cron")
_ACTOR = "system:cron"


def run(context: Pass) -> str:
    """Settle every entry that has a slot, each in a transaction of its own; their lines are handed out
    after that.

    Not alone: schedulers that run side by side meet at the entry's lock, and the second finds nothing left. One
    transaction for all would hold entries while it waits for jobs, and an end holds jobs while it waits for entries.
    """
    connection, into = context.connection, Settled()
    settling = Settling(connection, context.host, stop, context.now, _asleep_since(context))
    if not context.memory.get("has_adopted"):
        _adopt(settling, into)
        context.memory["has_adopted"] = True
    for entry in transitions.list_entries(connection):
        if _has_slot(context, entry):
            with connection.transaction():
                settling.settle(entry.name, into)
    _release(connection, context.now, into)
    if into.has_more:
        context.again()
    for job in into.stopped:
        if job.executor is not None:
            context.after_commit(
                partial(hurry_quietly, context.host.broker, job.queue, job.executor)
            )
    if into.lines and (hand_out := context.host.hand_out) is not None:
        # None under TESTING and without OPSJOBS_DISPATCH. It reports a silent Redis by itself.
        context.after_commit(partial(hand_out, [Line(*line) for line in sorted(into.lines)]))
    return _words(into)


def stop(connection: Connection, jobs: Sequence[Unfinished], reason: str, now: datetime) -> None:
    """End the jobs of an entry that wait, and ask for the one that runs to be stopped."""
    endings.stop(connection, {job.id: job.state for job in jobs}, _ACTOR, reason, now)


def _adopt(settling: Settling, into: Settled) -> None:
    """Take over what the code of this process declares. Only at its start: of two versions the last started counts."""
    connection, declared = settling.connection, settling.host.cron_entries
    for name in sorted(declared):
        with connection.transaction():
            done = adopt.adopt(settling, declared[name], process_name(), into)
        if done is not None:
            _log.info("cron entry %s is %s", name, done)
    for name in adopt.list_gone(connection, declared):
        with connection.transaction():
            adopt.retire(settling, name, into)
        _log.warning("cron entry %s is declared no longer, and retired", name)


def _asleep_since(context: Pass) -> datetime | None:
    """When a scheduler was last awake, if that is longer ago than its passes are apart."""
    gap = context.elapsed_seconds
    return context.now - timedelta(seconds=gap) if gap > 3 * _SECONDS else None


def _has_slot(context: Pass, entry: Standing) -> bool:
    """Whether a slot has come; the next one is worked out once and remembered."""
    key = (entry.expression, entry.zone, entry.checked_until)
    known = context.memory.setdefault("next", {})
    if known.get(entry.name, (None,))[0] != key:
        known[entry.name] = (key, next(entry.schedule.slots_after(entry.checked_until), None))
    slot = known[entry.name][1]
    return slot is not None and slot <= context.now


def _release(connection: Connection, now: datetime, into: Settled) -> None:
    """The sweep: what an end should have released and did not, since somebody held the job."""
    for name in transitions.list_waiting_behind(connection):
        with connection.transaction():
            into.lines.update(transitions.release(connection, [name], now))


def _words(into: Settled) -> str:
    said: Iterable[str] = (
        f"{count(number, 'slot')} {fate}" for fate, number in sorted(into.fates.items())
    )
    left = ["left to another version of the code"] if into.is_put_off else []
    return ", ".join([*said, *left]) or IDLE


_SECONDS = 1.0
LOOP = Loop("cron", every(_SECONDS), run, is_alone=False)
