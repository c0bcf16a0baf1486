"""The cron loop: every slot that has come gets its fate, and its job where it runs; who waits behind is released."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial

import psycopg

from .. import endings, signals, sql
from ..cron import adopt, transitions
from ..cron.settle import Settled, Settling
from ..cron.standing import Standing
from ..cron.transitions import Unfinished
from ..db import Connection, is_away
from ..engine.command import hurry_quietly
from ..jobs import failure
from ..jobs.touched import Line
from .one_pass import process_name
from .shape import IDLE, Loop, Pass, count, every

_log = logging.getLogger("flask_opsjobs.cron")
_ACTOR = "system:cron"
# A host that records the same unique call right now holds its unique lock; the entry waits for a later pass then.
_LOCK_WAIT = "3s"


def run(context: Pass) -> str:
    """Settle every entry that has a slot, each in a transaction of its own; their lanes are handed out after that.

    Not alone: schedulers that run side by side meet at the entry's lock, and the second finds nothing left. One
    transaction for all would hold entries while it waits for jobs, and an end holds jobs while it waits for entries.
    What goes wrong with one entry is logged, and the others have their slots.
    """
    connection, into = context.connection, Settled()
    settling = Settling(connection, context.host, stop, context.now)
    _adopt(context, settling, into)
    for entry in transitions.list_entries(connection):
        if _has_slot(context, entry):
            _apart(context, entry.name, into, partial(settling.settle, entry.name))
    for name in transitions.list_waiting_behind(connection):
        _apart(context, name, into, partial(_release, settling, name))
    if into.has_more:
        context.again()
    context.after_commit(partial(_follow, context, into))
    return _words(into)


def _apart(context: Pass, name: str, into: Settled, act: Callable[[Settled], object]) -> bool:
    """Act on one entry in a transaction of its own; whether that went well. Adds to `into` what was committed.

    The same failure pass after pass is told once. Raises only when Postgres is away.
    """
    connection, troubles = context.connection, context.memory.setdefault("troubles", {})
    done = Settled()
    try:
        with connection.transaction():
            connection.execute(sql.load("limit_lock_wait"), {"wait": _LOCK_WAIT})
            act(done)
    except Exception as error:
        if is_away(error) or connection.broken or connection.closed:
            raise
        words = failure.one_line(error)
        if troubles.get(name) != words:
            held = isinstance(error, psycopg.errors.LockNotAvailable)
            _log.error("cron entry %s is left: %s", name, words, exc_info=None if held else error)
        troubles[name] = words
        into.troubled.add(name)
        return False
    if name not in into.troubled and troubles.pop(name, None):
        _log.warning("cron entry %s is well again", name)
    into.add(done)
    return True


def _release(settling: Settling, name: str, into: Settled) -> None:
    """The sweep: what an end should have released and did not, since somebody held the job."""
    into.lanes.update(transitions.release(settling.connection, [name], settling.now))


def _follow(context: Pass, into: Settled) -> None:
    """What follows the commits: tell signals, hurry who is to stop, hand out."""
    host = context.host
    for task, enqueued in into.recorded:
        signals.send(signals.job_enqueued, task, enqueued=enqueued)
    for job in into.stopped:
        if job.worker is not None:
            hurry_quietly(host.broker, job.queue, job.worker)
    # None under TESTING and without OPSJOBS_DISPATCH. It reports a silent Redis by itself.
    if into.lanes and host.hand_out is not None:
        host.hand_out([Line(*lane) for lane in sorted(into.lanes)])


def stop(connection: Connection, jobs: Sequence[Unfinished], reason: str, now: datetime) -> None:
    """End the jobs of an entry that wait, and ask for the one that runs to be stopped."""
    endings.stop(connection, {job.id: job.state for job in jobs}, _ACTOR, reason, now)


def _adopt(context: Pass, settling: Settling, into: Settled) -> None:
    """Take over what the code of this process declares. Only once: of two versions the one started last counts.

    What fails is tried again in the next pass, and nothing is retired before all that is declared has been taken over.
    """
    declared, memory = settling.host.cron_entries, context.memory
    left: set[str] = memory.setdefault("to_adopt", set(declared))
    for name in sorted(left):
        if _apart(context, name, into, partial(_adopt_one, settling, name)):
            left.discard(name)
    if left or memory.get("is_done"):
        return
    gone = adopt.list_gone(settling.connection, declared)
    done = [_apart(context, name, into, partial(adopt.retire, settling, name)) for name in gone]
    kept = adopt.list_unredacted(settling.connection, settling.host.tasks)
    done += [_apart(context, name, into, partial(adopt.redact, settling, name)) for name in kept]
    memory["is_done"] = all(done)


def _adopt_one(settling: Settling, name: str, into: Settled) -> None:
    entry = settling.host.cron_entries[name]
    if done := adopt.adopt(settling, entry, process_name(), into):
        _log.info("cron entry %s is %s", name, done)


def _has_slot(context: Pass, entry: Standing) -> bool:
    """Whether a slot has come; the next one is worked out once and remembered.

    Also of an entry in trouble, and of one whose slots cannot be worked out: settling it tells, in its own transaction.
    """
    if entry.name in context.memory.get("troubles", {}):
        return True
    key = (entry.expression, entry.zone, entry.checked_until)
    known = context.memory.setdefault("next", {})
    if known.get(entry.name, (None,))[0] != key:
        try:
            slot = next(entry.schedule.slots_after(entry.checked_until), None)
        except Exception:
            return True
        known[entry.name] = (key, slot)
    slot = known[entry.name][1]
    return slot is not None and slot <= context.now


def _words(into: Settled) -> str:
    said: Iterable[str] = (
        f"{count(number, 'slot')} {fate}" for fate, number in sorted(into.fates.items())
    )
    left = ["left to another version of the code"] if into.is_put_off else []
    left += [f"{name} has trouble" for name in sorted(into.troubled)]
    return ", ".join([*said, *left]) or IDLE


_SECONDS = 1.0
LOOP = Loop("cron", every(_SECONDS), run, is_alone=False)
