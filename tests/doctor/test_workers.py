"""The checks of the workers, with workers that have registered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.workers import transitions as workers
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench


def _start(bench: Bench, name: str, deploy: str, ago: timedelta) -> int:
    """A worker of a deploy that started so long ago and has sent a heartbeat just now."""
    values: dict[str, Any] = {"host": "here", "pid": 1, "version": "0", "queues": ["default"]}
    process = workers.WorkerProcess(name=name, deploy_version=deploy, **values)
    now = read_clock(bench.connection)
    worker = workers.register(bench.connection, process, now - ago)
    workers.record_heartbeat(bench.connection, worker, workers.HeartbeatReport(1), now)
    return worker


@shows("workers.versions")
def test_two_versions_for_over_an_hour(bench: Bench, ask: Ask) -> None:
    connection, now = bench.connection, read_clock(bench.connection)
    workers.stop(connection, bench.worker_id, now)
    old = _start(bench, "old", "2026.11", timedelta(hours=5))
    assert ask("workers.versions").state == "ok"
    young = _start(bench, "young", "2026.12", timedelta(minutes=59))
    assert ask("workers.versions").sentence == "A deploy is under way."
    workers.stop(connection, young, now)
    _start(bench, "new", "2026.12", timedelta(minutes=61))
    found = ask("workers.versions")
    assert (found.state, "2026.12" in found.evidence) == ("warning", True)
    workers.stop(connection, old, now)
    assert ask("workers.versions").state == "ok"


@shows("workers.late")
def test_a_late_worker(bench: Bench, ask: Ask) -> None:
    assert ask("workers.late").state == "ok"

    def fall_silent(number: int, seconds: float) -> None:
        at = read_clock(bench.connection) - timedelta(seconds=seconds)
        report = workers.HeartbeatReport(number)
        workers.record_heartbeat(bench.connection, bench.worker_id, report, at)

    fall_silent(1, bench.host.settings.late_seconds - 15)
    assert ask("workers.late").state == "ok"
    fall_silent(2, bench.host.settings.late_seconds + 15)
    found = ask("workers.late")
    assert (found.state, found.sentence) == ("warning", f"1 worker is late: {bench.name}.")


@pytest.mark.parametrize(("queue", "word"), [("letters", "letters"), ("a b;c", "'a b;c'")])
def test_the_command_for_a_queue_that_nobody_serves_starts_a_worker_that_listens_to_it(
    bench: Bench, record_job: Callable[..., int], ask: Ask, queue: str, word: str
) -> None:
    job = record_job()
    bench.connection.execute("UPDATE opsjobs.jobs SET queue = %s WHERE id = %s", [queue, job])
    found = ask("workers.listeners")
    assert (found.state, found.run) == ("error", f"flask opsjobs worker {word}")
