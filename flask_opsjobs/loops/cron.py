"""Runs the cron loop: it decides due slots, enqueues their jobs, and releases jobs behind ended ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

import psycopg

from .. import endings, signals
from ..core import sql
from ..core.db import is_away
from ..core.words import counted
from ..cron import code_sync, transitions
from ..cron.decide_slots import SlotDecider, SlotReport
from ..cron.queries import CronEntryRow
from ..engine.redis.broker import broker_of, try_announce_stop
from ..engine.worker.runtime import process_name
from ..host import DueLane
from ..jobs.perform import describe_error
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.cron")
# A host's open transaction may hold the unique lock of the job. After this wait a later pass tries again.
_LOCK_WAIT = "3s"


def run(context: Pass) -> str:
    """Decide the due slots of every entry, each entry in a transaction of its own, then dispatch their lanes.

    Not alone: of two cron loops the second waits for the lock of the entry, and finds nothing left to do. One
    transaction for all entries could deadlock: it would lock entries and wait for jobs, while the end of a
    job locks jobs and waits for entries. An error of one entry is logged, and the other entries are not
    affected.
    """
    connection, report = context.connection, SlotReport()
    decider = SlotDecider(connection, context.host, endings.stop, context.now)
    _sync_declared(context, decider, report)
    for entry in transitions.list_entries(connection):
        if _has_slot(context, entry):
            _apart(context, entry.name, report, partial(decider.decide, entry.name))
    for name in transitions.list_waiting_behind(connection):
        _apart(context, name, report, partial(_release, decider, name))
    if report.has_more:
        context.again()
    context.after_commit(partial(_follow, context, report))
    return _describe(report)


def _apart(
    context: Pass, name: str, report: SlotReport, step: Callable[[SlotReport], object]
) -> bool:
    """Run `step` for one entry in a transaction of its own; return whether it did all that it has to do.

    Adds to `report` what was committed. Logs an error once, however many passes repeat it. Raises only when
    Postgres is away.
    """
    connection, troubles = context.connection, context.memory.setdefault("troubles", {})
    done = SlotReport()
    try:
        with signals.once_committed(), connection.transaction():
            connection.execute(sql.load("limit_lock_wait"), {"wait": _LOCK_WAIT})
            step(done)
    except Exception as error:
        if is_away(error) or connection.broken or connection.closed:
            raise
        message = describe_error.one_line(error)
        if troubles.get(name) != message:
            held = isinstance(error, psycopg.errors.LockNotAvailable)
            _log.error(
                "cron entry %s failed and is tried again: %s",
                name,
                message,
                exc_info=None if held else error,
            )
        troubles[name] = message
        report.troubled.add(name)
        return False
    if name not in report.troubled and troubles.pop(name, None):
        _log.warning("cron entry %s recovered", name)
    report.add(done)
    return not done.has_more


def _release(decider: SlotDecider, name: str, report: SlotReport) -> None:
    """Release jobs that the end of another job did not release, because they were locked at that moment."""
    report.lanes.update(transitions.release(decider.connection, [name], decider.now))


def _follow(context: Pass, report: SlotReport) -> None:
    """Send signals, ask workers to stop jobs, and dispatch, after the commits."""
    host = context.host
    for task, enqueued in report.enqueued:
        signals.send(signals.job_enqueued, task, enqueued=enqueued)
    for job in report.stopped:
        if job.worker is not None:
            try_announce_stop(broker_of(host), job.queue, job.worker)
    # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH. It logs an outage of Redis by itself.
    if report.lanes and host.dispatcher is not None:
        host.dispatcher.push([DueLane(*lane) for lane in sorted(report.lanes)])


def _sync_declared(context: Pass, decider: SlotDecider, report: SlotReport) -> None:
    """Sync the entries that this process declares, once: of two code versions the one started last wins.

    An entry that fails, or that has more due slots than one transaction decides, goes on in the next pass. No
    entry is retired before all declared ones are synced.
    """
    declared, memory = decider.host.cron_entries, context.memory
    left: set[str] = memory.setdefault("to_sync", set(declared))
    for name in sorted(left):
        if _apart(context, name, report, partial(_sync_one, decider, name)):
            left.discard(name)
    if left or memory.get("is_done"):
        return
    gone = code_sync.list_gone(decider.connection, declared)
    done = [
        _apart(context, name, report, partial(code_sync.retire, decider, name)) for name in gone
    ]
    kept = code_sync.list_unredacted(decider.connection, decider.host.tasks)
    done += [
        _apart(context, name, report, partial(code_sync.redact, decider, name)) for name in kept
    ]
    memory["is_done"] = all(done)


def _sync_one(decider: SlotDecider, name: str, report: SlotReport) -> None:
    entry = decider.host.cron_entries[name]
    if done := code_sync.sync_declared(decider, entry, process_name(), report):
        _log.info("cron entry %s is %s", name, done)


def _has_slot(context: Pass, entry: CronEntryRow) -> bool:
    """Return whether a slot of the entry is due. The next slot is computed once and remembered.

    Also true for an entry that failed, or whose slots cannot be computed: the decision reports the error, in
    its own transaction.
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


def _describe(report: SlotReport) -> str:
    results: Iterable[str] = (
        f"{counted(number, 'slot')} {result}" for result, number in sorted(report.results.items())
    )
    rest = ["slots left to another version of the code"] if report.is_put_off else []
    rest += [f"{name} failed" for name in sorted(report.troubled)]
    return ", ".join([*results, *rest]) or IDLE


_SECONDS = 1.0
LOOP = Loop("cron", every(_SECONDS), run, is_alone=False)
