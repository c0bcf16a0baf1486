"""Runs the recall loop: it compares Postgres with Redis, recalls lost jobs and removes orphan deliveries."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from ..core import sql
from ..core.words import counted
from ..engine.adopted.places import name_place
from ..engine.reconcile.recall import Suspects, recall_lost, recall_paused, recall_paused_tasks
from ..engine.reconcile.remove_deliveries import (
    OrphanScan,
    remove_orphan_deliveries,
    try_remove_deliveries,
)
from ..engine.redis.broker import broker_of
from ..engine.redis.connections import redis_name_of
from ..engine.redis.reads import answering, one_queue_per_redis
from ..errors import EngineUnavailable
from ..lifeline import incidents
from ..lifeline.detectors import delivery_lost, orphan_delivery, redis_away
from ..lifeline.finding import DetectorPass, Finding
from ..lifeline.incidents import Applied
from ..lifeline.repairs import MOST_JOBS
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")
# Events that follow each other within this time are one series.
_SERIES = timedelta(minutes=1)
T = TypeVar("T")


@dataclass
class EventSeries(Generic[T]):
    """Events that follow each other within a minute: how many in all, and in the last minute."""

    total: int = 0
    newest: list[T] = field(default_factory=list)
    minute: deque[tuple[datetime, int]] = field(default_factory=deque)

    def add(self, events: list[T], now: datetime) -> None:
        """Add the events of a pass. After a minute without any, a new series begins."""
        while self.minute and not timedelta() <= now - self.minute[0][0] <= _SERIES:
            self.minute.popleft()
        if not self.minute:
            self.total, self.newest = 0, []
        if events:
            self.minute.append((now, len(events)))
            self.total += len(events)
            self.newest = [*self.newest, *events][-MOST_JOBS:]

    @property
    def in_last_minute(self) -> int:
        """How many events the last minute had."""
        return sum(number for _, number in self.minute)


def run(context: Pass) -> str:
    """Recall jobs of paused queues and lost deliveries, count failed deliveries, remove orphan deliveries."""
    # What Postgres alone decides is done also while a Redis is away. The error is told at the end.
    errors: list[EngineUnavailable] = []
    silent: dict[str, str] = {}
    report = [
        *_recall_paused(context),
        *_recall(context, errors),
        *_remove_orphan_deliveries(context, errors, silent),
    ]
    _report_silent_redis(context, silent)
    if errors:
        raise errors[0]
    return ", ".join(report) or IDLE


def _recall_paused(context: Pass) -> list[str]:
    report = []
    for of, recalled in (
        ("queue", recall_paused(context.connection)),
        ("task", recall_paused_tasks(context.connection)),
    ):
        if recalled:
            try_remove_deliveries(broker_of(context.host), recalled)
            ids = _ids([(id, number) for _, id, number in recalled])
            _log.info("recalled jobs %s: their %s is paused", ids, of)
            report.append(f"recalled {counted(len(recalled), 'job')} of paused {of}s")
    return report


def _recall(context: Pass, errors: list[EngineUnavailable]) -> list[str]:
    settings = context.host.settings
    found = recall_lost(
        context.connection,
        broker_of(context.host),
        context.now,
        context.memory.get("suspects", Suspects()),
        settings.recall_seconds,
        settings.late_seconds,
    )
    context.memory["suspects"] = found.suspects
    _report_lost(context, [job_id for job_id, _ in found.recalled], found.error is None)
    errors += [found.error] if found.error is not None else []
    report = []
    if found.recalled:
        report.append(
            f"recalled {counted(len(found.recalled), 'lost delivery', 'lost deliveries')}"
        )
        _log.warning("recalled jobs %s: their delivery was lost", _ids(found.recalled))
    if found.without_redis:
        _log.warning("recalled jobs %s: Redis does not answer", _ids(found.without_redis))
    if found.failed:
        report.append(
            f"{counted(len(found.failed), 'delivery', 'deliveries')} failed by RQ workers"
        )
        _log.warning(
            "RQ workers failed jobs %s without running them: do they import the host's code?",
            _ids(found.failed),
        )
    return report


def _report_lost(context: Pass, recalled: list[int], is_complete: bool) -> None:
    series = context.memory.setdefault("lost", EventSeries[int]())
    series.add(recalled, context.now)
    found = []
    if recalled:
        found = [
            delivery_lost.find_lost_deliveries(series.total, series.in_last_minute, series.newest)
        ]
    _apply(context, "delivery_lost", found, is_complete)


def _report_orphans(context: Pass, removed: list[str], is_complete: bool) -> None:
    series = context.memory.setdefault("orphans", EventSeries[str]())
    series.add(removed, context.now)
    found = [orphan_delivery.find_orphans(series.total, series.newest)] if removed else []
    _apply(context, "orphan_delivery", found, is_complete)


def _report_silent_redis(context: Pass, silent: dict[str, str]) -> None:
    found: list[Finding] = []
    if silent:
        has_plain = context.connection.execute(sql.load("has_plain_rq")).fetchone() == (True,)
        found = [
            redis_away.find_silent_redis(place, why, has_plain) for place, why in silent.items()
        ]
    _apply(context, "redis_away", found, is_complete=True)


def _apply(context: Pass, class_: str, found: list[Finding], is_complete: bool) -> None:
    """Make incidents of what this pass found, in a transaction of its own: no call to Redis is in it."""
    applied = Applied()
    with context.connection.transaction():
        seen = DetectorPass(found, is_complete and not context.was_asleep)
        applied = incidents.apply_pass(context.connection, class_, seen, context.now)
    incidents.announce(context.host, applied)


def _remove_orphan_deliveries(
    context: Pass, errors: list[EngineUnavailable], silent: dict[str, str]
) -> list[str]:
    broker = broker_of(context.host)
    scans: dict[str, OrphanScan] = context.memory.setdefault("scans", {})
    removed: list[str] = []
    for queue in one_queue_per_redis(broker, context.queue_names()):
        name = redis_name_of(queue.connection)
        scan = scans.get(name, OrphanScan())
        try:
            with answering():
                scans[name], gone = remove_orphan_deliveries(
                    context.connection, broker, queue, scan, context.now
                )
            removed += gone
        except EngineUnavailable as error:
            errors.append(error)
            silent[name_place(context.host, queue.name)] = str(error)
    _report_orphans(context, removed, is_complete=not silent)
    number = len(removed)
    return [f"removed {counted(number, 'orphan delivery', 'orphan deliveries')}"] if number else []


def _ids(deliveries: list[tuple[int, int]]) -> str:
    shown = ", ".join(str(job_id) for job_id, _ in deliveries[:20])
    return shown if len(deliveries) <= 20 else f"{shown} and {len(deliveries) - 20} more"


LOOP = Loop("recall", every(2), run, is_alone=False)
