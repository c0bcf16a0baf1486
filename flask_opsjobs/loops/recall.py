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
from ..errors import EngineUnavailable
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Recall jobs of paused queues and lost deliveries, count failed deliveries, remove orphan deliveries."""
    # What Postgres alone decides is done also while a Redis is away. The error is told at the end.
    errors: list[EngineUnavailable] = []
    report = [
        *_recall_paused(context),
        *_recall(context, errors),
        *_remove_orphan_deliveries(context, errors),
    ]
    if errors:
        raise errors[0]
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


def _recall(context: Pass, errors: list[EngineUnavailable]) -> list[str]:
    settings = context.host.settings
    with answering():
        found = recall_lost(
            context.connection,
            broker_of(context.host),
            context.now,
            context.memory.get("suspects", Suspects()),
            settings.recall_seconds,
            settings.late_seconds,
        )
    context.memory["suspects"] = found.suspects
    errors += [found.error] if found.error is not None else []
    report = []
    if found.recalled:
        report.append(
            f"recalled {counted(len(found.recalled), 'lost delivery', 'lost deliveries')}"
        )
        why = "their delivery was lost" if found.error is None else "Redis does not answer"
        _log.warning("recalled jobs %s: %s", _ids(found.recalled), why)
    if found.failed:
        report.append(
            f"{counted(len(found.failed), 'delivery', 'deliveries')} failed by RQ workers"
        )
        _log.warning(
            "RQ workers failed jobs %s without running them: do they import the host's code?",
            _ids(found.failed),
        )
    return report


def _remove_orphan_deliveries(context: Pass, errors: list[EngineUnavailable]) -> list[str]:
    broker = broker_of(context.host)
    scans: dict[int, OrphanScan] = context.memory.setdefault("scans", {})
    removed = 0
    for number, queue in enumerate(one_queue_per_redis(broker, context.queue_names())):
        scan = scans.get(number, OrphanScan())
        try:
            with answering():
                scans[number], gone = remove_orphan_deliveries(
                    context.connection, broker, queue, scan, context.now
                )
            removed += len(gone)
        except EngineUnavailable as error:
            errors.append(error)
    return (
        [f"removed {counted(removed, 'orphan delivery', 'orphan deliveries')}"] if removed else []
    )


def _ids(deliveries: list[tuple[int, int]]) -> str:
    shown = ", ".join(str(job_id) for job_id, _ in deliveries[:20])
    return shown if len(deliveries) <= 20 else f"{shown} and {len(deliveries) - 20} more"


LOOP = Loop("recall", every(2), run, is_alone=False)
