"""Runs the recall loop: it compares Postgres with Redis, recalls lost jobs and removes orphan deliveries."""

from __future__ import annotations

import logging

from ..core.words import counted
from ..engine.reconcile.recall import Suspects, recall_lost, recall_paused
from ..engine.reconcile.remove_deliveries import (
    OrphanScan,
    remove_orphan_deliveries,
    try_remove_deliveries,
)
from ..engine.redis.broker import broker_of
from ..engine.redis.reads import answering, one_queue_per_redis
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Recall jobs of paused queues and lost deliveries, count failed deliveries, remove orphan deliveries."""
    with answering():
        report = [*_recall_paused(context), *_recall(context), *_remove_orphan_deliveries(context)]
    return ", ".join(report) or IDLE


def _recall_paused(context: Pass) -> list[str]:
    recalled = recall_paused(context.connection)
    if not recalled:
        return []
    try_remove_deliveries(broker_of(context.host), recalled)
    _log.info(
        "recalled jobs %s: their queue is paused",
        _ids([(id, number) for _, id, number in recalled]),
    )
    return [f"recalled {counted(len(recalled), 'job')} of paused queues"]


def _recall(context: Pass) -> list[str]:
    found = recall_lost(
        context.connection,
        broker_of(context.host),
        context.now,
        context.memory.get("suspects", Suspects()),
        context.host.settings.recall_seconds,
    )
    context.memory["suspects"] = found.suspects
    report = []
    if found.recalled:
        report.append(
            f"recalled {counted(len(found.recalled), 'lost delivery', 'lost deliveries')}"
        )
        _log.warning("recalled jobs %s: their delivery was lost", _ids(found.recalled))
    if found.failed:
        report.append(
            f"{counted(len(found.failed), 'delivery', 'deliveries')} failed by RQ workers"
        )
        _log.warning(
            "RQ workers failed jobs %s without running them: do they import the host's code?",
            _ids(found.failed),
        )
    return report


def _remove_orphan_deliveries(context: Pass) -> list[str]:
    broker = broker_of(context.host)
    scans: dict[int, OrphanScan] = context.memory.setdefault("scans", {})
    removed = 0
    for number, queue in enumerate(one_queue_per_redis(broker, context.queue_names())):
        scans[number], gone = remove_orphan_deliveries(
            context.connection, broker, queue, scans.get(number, OrphanScan()), context.now
        )
        removed += len(gone)
    return (
        [f"removed {counted(removed, 'orphan delivery', 'orphan deliveries')}"] if removed else []
    )


def _ids(deliveries: list[tuple[int, int]]) -> str:
    shown = ", ".join(str(job_id) for job_id, _ in deliveries[:20])
    return shown if len(deliveries) <= 20 else f"{shown} and {len(deliveries) - 20} more"


LOOP = Loop("recall", every(2), run, is_alone=False)
