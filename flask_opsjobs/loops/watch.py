"""Runs the watch loop: it marks workers without a heartbeat as late, then missing, and rescues their jobs."""

from __future__ import annotations

import logging
from functools import partial

from .. import signals
from ..core.words import counted
from ..engine.reconcile.remove_deliveries import try_remove_deliveries
from ..engine.redis.broker import broker_of
from ..lifeline.watch import Watched, watch
from .loop import IDLE, Loop, Pass

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Judge workers and rescue jobs.

    After the commit remove the deliveries from RQ, log, and send `worker_missing`.
    """
    host = context.host
    watched = watch(
        context.connection,
        context.now,
        context.elapsed_seconds,
        host.settings,
        host.secrets,
        after_commit=context.after_commit,
    )
    if watched.has_more:
        context.again()
    if watched.rescued:
        gone = [(job.queue, job.id, job.dispatch_no) for job in watched.rescued]
        context.after_commit(partial(try_remove_deliveries, broker_of(host), gone))
    context.after_commit(partial(_tell, host, watched))
    return _describe(watched)


def _tell(host: object, watched: Watched) -> None:
    for name in watched.missing:
        _log.warning("worker %s is missing", name)
        signals.send(signals.worker_missing, host, worker=name)
    for name in watched.late:
        _log.warning("worker %s is late", name)
        signals.send(signals.worker_late, host, worker=name)
    if watched.rescued:
        _log.warning(
            "rescued %s", ", ".join(f"job {job.id} ({job.state})" for job in watched.rescued)
        )


def _describe(watched: Watched) -> str:
    report = [f"{name} is missing" for name in watched.missing]
    report += [f"{name} is late" for name in watched.late]
    report += [f"{name} sends heartbeats again" for name in watched.well]
    if watched.rescued:
        report.append(f"rescued {counted(len(watched.rescued), 'job')}")
    if watched.abandoned:
        report.append(f"{counted(watched.abandoned, 'abandoned job')} not rescued")
    return ", ".join(report) or IDLE


LOOP = Loop("watch", lambda settings: settings.heartbeat_seconds, run, is_alone=True)
