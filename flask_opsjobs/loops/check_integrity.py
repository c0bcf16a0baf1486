"""Runs the integrity check: counts enqueued, deleted and stored jobs, and compares live jobs with Redis."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from ..core.words import counted
from ..engine.redis.broker import broker_of, parse_rq_id, rq_id
from ..engine.redis.connections import by_redis
from ..engine.redis.reads import answering, find_deliveries_of_queues
from ..errors import EngineUnavailable
from ..lifeline import incidents, integrity
from ..lifeline.detectors import integrity_off
from ..lifeline.finding import DetectorPass
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")
# Findings are written when they change, and at least this often, so that pages can show their age.
_WRITTEN_AGAIN = timedelta(seconds=10)


def run(context: Pass) -> str:
    """Count jobs when that is due, then compare. Not alone: no lock is held during a call to Redis."""
    connection, now, memory = context.connection, context.now, context.memory
    is_counted = integrity.count_rows(connection, now)
    _report_differences(context)
    errors: list[EngineUnavailable] = []
    compared, found = _compare(context, errors)
    last, written_at = memory.get("written", (None, now))
    if is_counted or found != last or not timedelta() <= now - written_at < _WRITTEN_AGAIN:
        integrity.write_findings(connection, found, compared, now, is_complete=not errors)
        memory["written"] = found, now
    if found.total and found != last:
        _log.warning("integrity check: %s", _describe(found))
    if errors:
        raise errors[0]
    return _describe(found) if found.total else IDLE


def _report_differences(context: Pass) -> None:
    """Make incidents of queues whose counts did not agree two times in a row.

    What the comparison finds must also last as long as two counts are apart: it repairs itself, as a rule.
    """
    connection, now = context.connection, context.now
    differences = integrity.list_differences(connection, now, context.host.settings)
    before: dict[str, tuple[datetime, datetime]] = context.memory.get("differed_since", {})
    since = {each.queue: before.get(each.queue, (each.counted_at, now)) for each in differences}
    context.memory["differed_since"] = since
    found = [
        integrity_off.find_difference(each)
        for each in differences
        if each.counted_at > since[each.queue][0]
        if each.missing or now - since[each.queue][1] >= integrity.LEAST_BETWEEN_COUNTS
    ]
    with connection.transaction():
        seen = DetectorPass(found, is_complete=not context.was_asleep)
        applied = incidents.apply_pass(connection, "integrity_off", seen, now)
    incidents.announce(context.host, applied)


def _compare(
    context: Pass, errors: list[EngineUnavailable]
) -> tuple[set[str], integrity.Differences]:
    """Compare jobs with Redis; return the queues whose Redis answered, and what differs in them.

    Reads rows, then Redis, then rows again, so that no moving job is missed.
    """
    connection, host = context.connection, context.host
    queued = integrity.list_queued(connection, context.now, host.settings.recall_seconds)
    wanted: dict[str, list[str]] = {name: [] for name in context.queue_names()}
    for key, queue in queued.items():
        wanted.setdefault(queue, []).append(rq_id(*key))
    compared: set[str] = set()
    seen: dict[tuple[int, int], str] = {}
    for queues in by_redis(map(broker_of(host).queue, wanted)):
        try:
            with answering():
                found = find_deliveries_of_queues(queues, wanted, context.now)
        except EngineUnavailable as error:  # the others are compared
            errors.append(error)
            continue
        compared |= set(found)
        for queue, there in found.items():
            for name in there.listed | there.intermediate | there.running:
                if (delivery := parse_rq_id(name)) is not None:
                    seen[delivery] = queue
    nowhere = {key: queue for key, queue in queued.items() if queue in compared and key not in seen}
    orphan_deliveries = integrity.find_orphan_deliveries(connection, seen)
    before = context.memory.get("unconfirmed", integrity.UnconfirmedDifferences())
    context.memory["unconfirmed"], differences = integrity.confirm_differences(
        connection, before, nowhere, orphan_deliveries
    )
    return compared, differences


def _describe(found: integrity.Differences) -> str:
    findings = (
        ("job", "jobs", "queued, but not in Redis", found.nowhere),
        ("job", "jobs", "started, but listed by no worker", found.unreserved),
        ("delivery", "deliveries", "in Redis without a job", found.orphan_deliveries),
    )
    return ", ".join(
        f"{counted(number, one, many)} {what}"
        for one, many, what, queues in findings
        if (number := sum(queues.values()))
    )


LOOP = Loop("check_integrity", every(2), run, is_alone=False)
