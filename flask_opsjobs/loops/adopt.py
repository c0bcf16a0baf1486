"""Runs the adopt loop: it gives plain RQ jobs rows, and writes what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..core.db import is_away
from ..core.display import Display
from ..core.words import counted
from ..engine.adopted.adopting import Adopted, adopt_jobs
from ..engine.adopted.memory import Memory
from ..engine.adopted.orphans import find_orphan_jobs
from ..engine.adopted.places import RedisPlace, list_places
from ..engine.redis.reads import answering
from ..lifeline import incidents
from ..lifeline.detectors import redis_lost, rq_orphan
from ..lifeline.finding import DetectorPass, Finding
from .loop import IDLE, Loop, Pass, every
from .recall import EventSeries

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Make one pass over each Redis; the next one at once while more jobs wait to be read.

    What is wrong with plain jobs becomes incidents, after Redis was asked. What goes wrong at one Redis, also
    an error of ours, is told after the others had their pass.
    """
    errors: list[Exception] = []
    report: list[str] = []
    orphans: list[Finding] = []
    again: list[Finding] = []
    for place in list_places(context.host, context.queue_names()):
        try:
            with answering():
                adopted = _adopt(context, place)
                found = _find_orphans(context, place)
        except Exception as error:
            if is_away(error):
                raise
            errors.append(error)
            continue
        report += _say(place, adopted)
        orphans += found
        again += _name_jobs_again(context, place, adopted.again)
    _report(context, "rq_orphan", orphans, not (errors or context.was_asleep))
    if again:
        # The loop `observe` looks for this class, and clears it.
        _report(context, "redis_lost", again, is_complete=False)
    if errors:
        raise errors[0]
    return ", ".join(report) or IDLE


def _adopt(context: Pass, place: RedisPlace) -> Adopted:
    memories: dict[str, Memory] = context.memory.setdefault("places", {})
    memory = memories.setdefault(place.name, Memory())
    display = Display(context.host.display, may_see=True)
    found = adopt_jobs(context.connection, place, memory, display.hides, context.now)
    if found.waiting:
        context.again()
    return found


def _find_orphans(context: Pass, place: RedisPlace) -> list[Finding]:
    return [
        rq_orphan.find_orphan(
            each.job.id,
            each.job.task,
            each.job.queue,
            each.job.started_at,
            each.worker,
            each.heard_until.isoformat() if each.heard_until else None,
        )
        for each in find_orphan_jobs(context.connection, place, context.now)
    ]


def _name_jobs_again(context: Pass, place: RedisPlace, jobs: Sequence[int]) -> list[Finding]:
    """Name the ended jobs that RQ will run again. A Redis that came back brings them over several passes."""
    series: dict[str, EventSeries[int]] = context.memory.setdefault("again", {})
    of_place = series.setdefault(place.name, EventSeries())
    of_place.add(list(jobs), context.now)
    if not jobs:
        return []
    shown = ", ".join(map(str, jobs[:20]))
    more = f" and {len(jobs) - 20} more" if len(jobs) > 20 else ""
    _log.critical("RQ will run plain jobs again that have ended: %s%s", shown, more)
    return [redis_lost.find_jobs_again(place.name, of_place.total, of_place.newest)]


def _report(context: Pass, class_: str, found: list[Finding], is_complete: bool) -> None:
    """Make incidents of what this pass found, in a transaction of its own: no call to Redis is in it."""
    with context.connection.transaction():
        seen = DetectorPass(found, is_complete)
        applied = incidents.apply_pass(context.connection, class_, seen, context.now)
    incidents.announce(context.host, applied)


def _say(place: RedisPlace, found: Adopted) -> list[str]:
    where = "" if place.name == "default" else f" of {place.name}"
    parts = (
        (found.adopted, f"adopted {counted(found.adopted, 'plain job')}{where}"),
        (found.changed, f"{counted(found.changed, 'plain job')}{where} changed"),
        (found.unseen, f"{counted(found.unseen, 'plain job')}{where} ended unseen"),
        (found.refused, f"{counted(found.refused, 'plain job')}{where} cannot be stored"),
        (found.waiting, f"{counted(found.waiting, 'plain job')}{where} to read"),
        (found.left_out, f"{counted(found.left_out, 'name')}{where} left out"),
        (len(found.in_turns), f"{', '.join(found.in_turns)}{where} read in turns"),
    )
    return [words for number, words in parts if number]


LOOP = Loop("adopt", every(10), run, is_alone=False)
