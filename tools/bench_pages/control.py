"""Makes cron entries with a long run history, limiters, and incidents, by the writers of production."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from flask_opsjobs import JobFilter, Limit
from flask_opsjobs.actions.operator import Why
from flask_opsjobs.cron import transitions as cron
from flask_opsjobs.cron.declaration import EntryDeclaration
from flask_opsjobs.cron.expression import Schedule
from flask_opsjobs.cron.transitions import Slot
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.finding import DetectorPass, Finding, Observation
from flask_opsjobs.lifeline.incidents import apply_pass
from flask_opsjobs.limits import transitions as limits
from flask_opsjobs.operations.operator import BulkOperator

# Each was paused and canceled after it had frozen the failed jobs of a queue.
OPERATIONS = 5
LIMITERS = ("customer-api", "crm")
ENTRIES = ("nightly_sync", "export_books", "ping")
# Four weeks of half hours.
SLOTS = 1_344
# All of them open, which is more than a site has in its worst hour.
INCIDENTS = 400
_HALF_HOUR = timedelta(minutes=30)


def fill(host: Host, connection: psycopg.Connection[Any], now: datetime) -> None:
    """Write them, each entry with its run history in a transaction. No job draws from these limiters."""
    declared = [Limit(name, rate=10, per=1, partition="account_id") for name in LIMITERS]
    limits.declare(connection, host.secrets, declared, "bench", now)
    for name in ENTRIES:
        with connection.transaction():
            _fill_entry(connection, name, now)
    with connection.transaction():
        findings = [_find_failing(number, now) for number in range(INCIDENTS)]
        apply_pass(connection, "loop_failing", DetectorPass(findings, True), now)
    _fill_operations(host, connection)


def _fill_operations(host: Host, connection: psycopg.Connection[Any]) -> None:
    """Freeze jobs for operations that then change none: these would move the copies."""
    operator = BulkOperator(host)
    why: Why = {"actor": "ops-demo", "reason": "the bank was away, and is well again"}
    one = "SELECT queue FROM opsjobs.jobs WHERE state = 'failed' ORDER BY id LIMIT 1"
    (queue,) = connection.execute(one).fetchone() or ("",)
    wanted = JobFilter(state="failed", queue=queue)
    for _ in range(OPERATIONS):
        started = operator.start("job.retry", wanted, **why)
        assert started.id is not None
        operator.pause_operation(started.id, **why)
        operator.cancel_operation(started.id, **why)


def _find_failing(number: int, now: datetime) -> Finding:
    facts = {"loop": f"loop_{number}", "process": "web-1:17", "failed": 5, "error": "KeyError: 'x'"}
    seen = Observation("pass_failed", "loop_runs", facts)
    since = now - timedelta(hours=1, minutes=number)
    return Finding(f"loop/loop_{number}", since, facts=facts, evidence=(seen,))


def _fill_entry(connection: psycopg.Connection[Any], name: str, now: datetime) -> None:
    schedule = Schedule("*/30 * * * *", "Europe/Paris")
    first = now.replace(minute=0, second=0, microsecond=0) - SLOTS * _HALF_HOUR
    entry = EntryDeclaration(
        name, "sync_customer", schedule, "skip", "latest", None, {"customer_id": 7}
    )
    cron.create(connection, entry, "runtime", "ops-demo", first)
    (row,) = cron.read(connection, [name]).values()
    for number, slot_at in enumerate(_slots(first)):
        result, job_id = ("missed", None) if number % 97 == 0 else ("ran", number + 1)
        cron.write_result(connection, row, Slot(slot_at, result, job_id=job_id), now)
    cron.move_on(connection, name, now)


def _slots(first: datetime) -> Sequence[datetime]:
    return [first + number * _HALF_HOUR for number in range(SLOTS)]
