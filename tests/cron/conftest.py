"""A host with tasks for cron, and a scheduler whose time the test moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench

# A Monday; long ago, so that Postgres' own clock is never before a slot of a test.
START = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)


class Scheduler:
    """The loop `cron` of one process, pass by pass."""

    def __init__(self, bench: Bench, process: str = "one") -> None:
        self.bench = bench
        self.runner = Runner(cron.LOOP, bench.host, process)

    def look(self, now: datetime) -> None:
        """Make passes at `now` until no more is to do; a pass that failed fails the test."""
        while self.runner.run_once(self.bench.connection, now):
            pass
        assert self.runner.last_error is None

    def slots(self, entry: str = "sync") -> list[tuple[Any, ...]]:
        """(slot as `15:04`, result, how many) of an entry, in order."""
        rows = self.bench.rows(
            "SELECT * FROM opsjobs.cron_slots WHERE entry = %s ORDER BY slot_at, id", entry
        )
        return [
            (row["slot_at"].astimezone(UTC).strftime("%H:%M"), row["result"], row["slots"])
            for row in rows
        ]

    def jobs(self) -> list[dict[str, Any]]:
        """Every job, in order."""
        return self.bench.rows("SELECT * FROM opsjobs.jobs ORDER BY id")

    def entry(self, name: str = "sync") -> dict[str, Any]:
        """The row of an entry."""
        return self.bench.row("SELECT * FROM opsjobs.cron_entries WHERE name = %s", name)


@pytest.fixture
def sync(opsjobs: OpsJobs) -> Task:
    """The task that entries of these tests run."""

    def sync(account: int = 0, secret: str = "") -> None:
        """Does nothing."""

    return opsjobs.task(redact={"secret"})(sync)


@pytest.fixture
def scheduler(bench: Bench) -> Scheduler:
    """A scheduler of a process of its own."""
    return Scheduler(bench)


@pytest.fixture
def every_ten(opsjobs: OpsJobs, sync: Task, scheduler: Scheduler) -> Callable[..., Scheduler]:
    """Declares the entry `sync` each ten minutes and has the scheduler take it over at `START`."""

    def declare(**policies: Any) -> Scheduler:
        opsjobs.cron("*/10 * * * *", **policies)(sync)
        scheduler.look(START)
        return scheduler

    return declare
