"""Checks the jobs: their integrity, long waits, paused queues, and outcomes that were not written."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import func, select

from ..core import sql
from ..core.round_trips import start_reading
from ..core.words import agree, counted, moment, span
from ..jobs.models import Job
from ..lifeline.detectors import integrity_off
from ..lifeline.incidents import words_of
from ..lifeline.integrity import QueueDifference, list_differences, list_integrity_checks
from ..lifeline.loop_runs import find_loop
from ..overview.headline import NOT_COUNTED
from ..queues.models import Queue
from ..queues.queries import MOST_QUEUES
from ..tasks.queries import list_paused
from .check import (
    ERROR,
    WARNING,
    CheckAnswer,
    CheckContext,
    DoctorCheck,
    error,
    ok,
    skipped,
    warning,
)
from .incidents import driver_connection, look_for, state_of_class

_LONG_PAUSE = timedelta(days=1)
_LONG_WAIT = timedelta(minutes=15)
_LATELY = timedelta(days=1)
_SEE = "flask opsjobs incidents"


def _read_integrity(context: CheckContext) -> tuple[Sequence[QueueDifference], bool, str]:
    """What the last integrity check found, whether it is still made, and as of when its counts are."""
    with context.reading() as read:
        finding_loop = start_reading(read.session, find_loop, read.now, "check_integrity")
        listing = start_reading(read.session, list_integrity_checks)
        found = list_differences(driver_connection(read), read.now, context.host.settings)
        loop, counted = finding_loop.value, [row.counted_at for row in listing.value]
    as_of = f"As of {moment(min(counted))}." if counted else ""
    return found, bool(loop and loop.is_running), as_of


def _look_for_difference(
    part: Callable[[QueueDifference], int], fine: str
) -> Callable[[CheckContext], CheckAnswer]:
    """A look at one part of the last integrity check of each queue."""

    def look(context: CheckContext) -> CheckAnswer:
        found, is_made, as_of = context.once("integrity", lambda: _read_integrity(context))
        wrong = [each for each in found if part(each)]
        if not wrong:
            return ok(fine, as_of) if is_made else skipped(NOT_COUNTED)
        words = words_of("integrity_off", integrity_off.find_difference(wrong[0]).facts)
        left = len(wrong) - 1
        more = (
            f" {counted(left, 'more queue')} {agree(left, 'differs', 'differ')} too."
            if left
            else ""
        )
        return error(f"{words.title}.", f"{words.why}{more}", _SEE)

    return look


def _due(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        values = {"limit": MOST_QUEUES}
        row = driver_connection(read).execute(sql.load("find_long_due_job"), values).fetchone()
    if row is None or read.now - row[1] <= _LONG_WAIT:
        return ok("No due job waits for long.")
    queue, due_at = row
    return warning(
        f"A job of the queue {queue} has been due for {span((read.now - due_at).total_seconds())}.",
        "Start more workers, or see why those that run do not take it.",
        f"flask opsjobs worker {queue}",
    )


def _paused(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        long_ago = read.now - _LONG_PAUSE
        listing = start_reading(read.session, list_paused, before=long_ago)
        queues = select(Queue.name, Queue.paused_by).where(Queue.paused_at < long_ago)
        paused = {
            "queue": read.session.execute(queues.order_by(Queue.name)).all(),
            "task": [(each.task, each.paused_by) for each in listing.value],
        }
    found = {kind: rows for kind, rows in paused.items() if rows}
    if not found:
        return ok("No queue and no task is paused for over a day.")
    says = [
        f"{counted(len(rows), kind)} paused for over a day: {', '.join(name for name, _ in rows)}."
        for kind, rows in found.items()
    ]
    kind, ((name, by), *_) = next(iter(found.items()))
    run = shlex.join(["flask", "opsjobs", kind, "resume", name])
    return warning(" ".join(says), f"The first was paused by {by}.", run)


def _unrecordable(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        since = read.now - _LATELY
        recent = (
            select(Job.ended_by)
            .where(Job.state == "failed", Job.ended_at > since)
            .order_by(Job.ended_at.desc())
            .limit(2_000)
            .subquery()
        )
        number = read.session.scalar(
            select(func.count()).select_from(recent).where(recent.c.ended_by == "unrecordable")
        )
    if not number:
        return ok("Every outcome was written.")
    return warning(
        f"The outcomes of {counted(number, 'job')} could not be written within a day.",
        "What the function returned or raised cannot be stored; the job's page says why.",
    )


_NEEDS = ("schema.version",)


def _difference(
    name: str, asks: str, part: Callable[[QueueDifference], int], fine: str
) -> DoctorCheck:
    return DoctorCheck(f"jobs.{name}", (ERROR,), asks, _look_for_difference(part, fine), _NEEDS)


CHECKS = (
    _difference(
        "integrity_off",
        "as many jobs are stored as were enqueued and not deleted",
        lambda each: each.missing,
        "All jobs that were enqueued are stored or were deleted.",
    ),
    _difference(
        "delivery_lost",
        "each queued job is in Redis, in two comparisons",
        lambda each: each.nowhere,
        "All queued jobs are in Redis.",
    ),
    DoctorCheck(
        "jobs.held_by_nobody",
        (state_of_class("held_by_nobody"),),
        "two heartbeats of a worker name the jobs that it has",
        look_for("held_by_nobody", "Workers name all their jobs.", _SEE),
        _NEEDS,
    ),
    _difference(
        "orphan_delivery",
        "no delivery in Redis is without a job, in two comparisons",
        lambda each: each.orphans,
        "All deliveries in Redis have a job.",
    ),
    DoctorCheck(
        "jobs.due",
        (WARNING,),
        "no due job without a limiter waits longer than 15 minutes, but in paused queues",
        _due,
        _NEEDS,
    ),
    DoctorCheck(
        "jobs.paused", (WARNING,), "no queue and no task is paused for over a day", _paused, _NEEDS
    ),
    DoctorCheck(
        "jobs.unrecordable",
        (WARNING,),
        "every outcome of the last day was written",
        _unrecordable,
        _NEEDS,
    ),
)
