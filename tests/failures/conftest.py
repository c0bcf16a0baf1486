"""Fails attempts of jobs on workers of chosen deploys, and counts them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.failures.count import count_failures
from flask_opsjobs.host import Host
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.jobs.failure_key import key_of_end
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.support.engine import Bench


class FailureBench:
    """A worker whose jobs fail. `key` says with which error, `ago` how long ago."""

    def __init__(self, bench: Bench, make_bench: MakeBench, record_job: Callable[..., int]) -> None:
        self.bench = bench
        self._make_bench = make_bench
        self._record_job = record_job

    @property
    def now(self) -> datetime:
        """Postgres' clock."""
        return read_clock(self.bench.connection)

    def start_worker(self, deploy_id: int | None = None) -> Bench:
        """A worker that starts now, in this deploy."""
        worker = self._make_bench()
        worker.rows(
            "UPDATE opsjobs.workers SET deploy_id = %s, started_at = clock_timestamp() WHERE id = %s"
            " RETURNING 1",
            deploy_id,
            worker.worker_id,
        )
        return worker

    def fail(
        self,
        key: str = "a",
        *,
        on: Bench | None = None,
        ago: timedelta = timedelta(),
        max_attempts: int = 1,
        **outcome: Any,
    ) -> int:
        """A job whose attempt failed; the outcome is written now, and ended `ago`."""
        worker = on or self.bench
        job_id = self._record_job(max_attempts=max_attempts)
        worker.dispatch(prefetch=100_000)
        worker.claim(job_id)
        failed = Outcome(
            **{"kind": "raised", "error": f"ValueError: {key} 7", "failure_key": make_key(key)}
            | outcome
        )
        worker.record(job_id, 1, failed)
        if ago:
            worker.rows(
                "UPDATE opsjobs.attempts SET started_at = started_at - %s, ended_at = ended_at - %s"
                " WHERE job_id = %s RETURNING 1",
                ago,
                ago,
                job_id,
            )
        return job_id

    def count(self, now: datetime | None = None) -> int:
        """Count what failed, as roll_up does."""
        with self.bench.connection.transaction():
            return count_failures(self.bench.connection, self.bench.host, now or self.now)

    def failures(self) -> list[dict[str, Any]]:
        """The rows of the failures, in id order."""
        return self.bench.rows("SELECT * FROM opsjobs.failures ORDER BY id")

    def failure(self) -> dict[str, Any]:
        """The only failure."""
        (row,) = self.failures()
        return row


@pytest.fixture
def hiding(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host hides what the display policy that is installed hides."""
    monkeypatch.setattr(host, "display", HostDisplay())


def make_key(name: str) -> str:
    """A failure key of its own for each name."""
    return key_of_end("bench", name, None)


@pytest.fixture
def failing(bench: Bench, make_bench: MakeBench, record_job: Callable[..., int]) -> FailureBench:
    """A bench whose jobs fail."""
    return FailureBench(bench, make_bench, record_job)
