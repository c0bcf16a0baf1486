"""Operations of a test: jobs that the real engine failed, and passes of the loop `operate`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import JobFilter
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import operate
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.operations.operator import BulkOperator
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
FAILED = JobFilter(state="failed")
SAME, OTHER = bytes([1] * 16), bytes([2] * 16)


def failure(key: bytes = SAME) -> Outcome:
    """An attempt that raised."""
    return Outcome(kind="raised", error="Boom", failure_key=key.hex())


RETURNED = Outcome(kind="returned")


class Operations:
    """Jobs, operations and the loop of one test. `now` moves only when `later` is called."""

    def __init__(self, bench: Bench, note: Task, db: Any) -> None:
        self.bench = bench
        self.operator = BulkOperator(bench.host)
        self._note = note
        self._db = db
        self._runner = Runner(operate.LOOP, bench.host, "one")
        self._later = timedelta()
        # Whether the workers send no heartbeats any more.
        self.is_silent = False

    @property
    def now(self) -> datetime:
        """Postgres' clock, moved by what `later` was told."""
        return read_clock(self.bench.connection) + self._later

    def later(self, span: timedelta) -> None:
        """Let time pass."""
        self._later += span

    def enqueue(self, number: int, **options: Any) -> list[int]:
        """Enqueue so many jobs; their ids."""
        task = self._note.options(**{"max_attempts": 1, **options})
        task.enqueue_many({"text": str(n)} for n in range(number))
        self._db.session.commit()
        newest = "SELECT id FROM opsjobs.jobs ORDER BY id DESC LIMIT %s"
        return [row["id"] for row in reversed(self.bench.rows(newest, number))]

    def fail(self, number: int, key: bytes = SAME, **options: Any) -> list[int]:
        """Enqueue so many jobs and let their only attempt fail; their ids."""
        ids = self.enqueue(number, **options)
        self.perform(failure(key))
        return ids

    def perform(self, outcome: Outcome, most: int = 1_000_000) -> list[int]:
        """Dispatch what is due, and let the attempt of each end so; the ids."""
        self.bench.dispatch(prefetch=most)
        queued = self.bench.rows(
            "SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'queued' ORDER BY id"
        )
        deliveries = [(row["id"], row["dispatch_no"]) for row in queued]
        for delivery in deliveries:
            self.bench.claim(*delivery)
        self.bench.record_all(deliveries, outcome)
        return [job_id for job_id, _ in deliveries]

    def pass_once(self, now: datetime | None = None) -> bool:
        """Make a pass of the loop, after a heartbeat of each worker; whether the next follows at once."""
        now = now or self.now
        if not self.is_silent:
            beat = "UPDATE opsjobs.workers SET heartbeat_at = %s WHERE ended_at IS NULL"
            self.bench.connection.execute(beat, [now])
        return self._runner.run_once(self.bench.connection, now)

    def pass_all(self) -> None:
        """Make passes as long as the loop has something to do at once."""
        for _ in range(1_000):
            if not self.pass_once():
                return
        raise AssertionError("the loop has always more to do")

    def run(self, outcome: Outcome | None = None, most_passes: int = 500) -> dict[str, Any]:
        """Make passes until the only operation has ended or stands; what is due ends with `outcome`."""
        for _ in range(most_passes):
            self.pass_all()
            operation = self.operation()
            if operation["state"] != "running":
                return operation
            if outcome is not None and not self.perform(outcome):
                return self.operation()
        raise AssertionError("the operation did not end")

    def operation(self, id: int | None = None) -> dict[str, Any]:
        """The row of the operation, or of the newest one."""
        return self.bench.row(
            "SELECT * FROM opsjobs.operations"
            " WHERE id = coalesce(%s, (SELECT max(id) FROM opsjobs.operations))",
            id,
        )

    def receipts(self, id: int | None = None) -> list[dict[str, Any]]:
        """The rows of the operation, or of the newest one, in order."""
        return self.bench.rows(
            "SELECT * FROM opsjobs.operation_rows WHERE operation_id = %s ORDER BY number",
            self.operation(id)["id"],
        )

    def audited(self) -> list[str]:
        """The actions of the audit, in order."""
        rows = self.bench.rows("SELECT action FROM opsjobs.audit_events ORDER BY sequence")
        return [row["action"] for row in rows]

    def states(self, ids: Sequence[int]) -> set[str]:
        """The states of these jobs."""
        rows = self.bench.rows("SELECT state FROM opsjobs.jobs WHERE id = ANY(%s)", list(ids))
        return {row["state"] for row in rows}


def counts_of(operation: dict[str, Any]) -> dict[str, int]:
    """The counts of an operation that are not 0."""
    names = (
        *("done", "skipped", "asked", "proven", "failed_same_error", "failed_other_error"),
        *("unproven", "drifted"),
    )
    return {name: operation[name] for name in names if operation[name]}


@pytest.fixture
def operations(bench: Bench, note: Task, db: Any) -> Operations:
    return Operations(bench, note, db)
