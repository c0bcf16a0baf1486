"""A sweep that rescues is one row in the audit, of the same transaction."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.audit.queries import list_events_of
from flask_opsjobs.audit.verify import verify
from flask_opsjobs.endings import Ended
from flask_opsjobs.errors import AuditHeadMissing
from flask_opsjobs.lifeline.sweep import MOST_NAMED, Swept, make_decision
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.one_pass import Runner
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.lifeline.test_watch import Watcher, watcher
from tests.support.engine import Bench

__all__ = ["watcher"]


def events(bench: Bench) -> list[dict[str, Any]]:
    """The audit, oldest first."""
    return bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")


def test_a_sweep_says_whose_jobs_it_put_back_which_and_why(
    bench: Bench, start_job: StartJob, watcher: Watcher
) -> None:
    again, last = start_job(bench), start_job(bench, max_attempts=1)
    watcher.passes(times=12)
    (event,) = events(bench)
    assert (event["actor"], event["via"], event["action"]) == ("system", "system", "job.rescue")
    assert (event["outcome"], event["at"]) == ("done", watcher.now)
    assert event["subject"] == f"2 jobs of {bench.name}"
    assert set(event["targets"]) == {f"job/{again}", f"job/{last}"}
    assert event["reason"].startswith("executor vanished: no beat after")
    assert event["after"] == {
        f"executor/{bench.executor_id}": {
            "name": bench.name,
            "cause": event["reason"],
            "jobs": 2,
            "available": [again],
            "failed": [last],
        }
    }
    with Session(bench.host.engine) as session:
        assert [found.sequence for found in list_events_of(session, f"job/{last}")] == [1]
        assert verify(session, bench.host.secrets).state == "intact"


def test_several_executors_are_one_row(make_bench: MakeBench, start_job: StartJob) -> None:
    one, two = make_bench("one"), make_bench("two")
    found = Watcher(one)
    found.passes(0)
    start_job(one)
    start_job(two)
    found.passes(times=12)
    (event,) = events(one)
    assert event["subject"] == "2 jobs of 2 executors"
    assert set(event["after"]) == {f"executor/{bench.executor_id}" for bench in (one, two)}


def test_a_sweep_that_rescues_nothing_says_nothing(bench: Bench, start_job: StartJob) -> None:
    manual = Watcher(bench, rescue="manual")
    manual.passes(times=3)
    start_job(bench)
    assert manual.passes(times=14).orphans == 1
    assert events(bench) == []


def test_one_row_names_some_and_counts_all() -> None:
    ended = [Ended(id, 1, "available", None, "w", "q", "q", False) for id in range(1, 251)]
    now = datetime.now(UTC)
    decision = make_decision(
        [Swept(7, "web-1", "gone", ended[:90]), Swept(8, None, "gone", ended[90:])], now
    )
    assert len(decision.targets) == MOST_NAMED
    assert decision.reason == "gone"
    assert [each["jobs"] for each in decision.after.values()] == [90, 160]
    assert [len(each["available"]) for each in decision.after.values()] == [90, 10]
    assert make_decision([Swept(8, None, "gone", ended[:1])], now).subject == "job/1"
    assert make_decision([Swept(8, None, "gone", ended)], now).subject == "250 jobs of executor 8"


def test_without_its_row_nothing_is_rescued(
    bench: Bench, start_job: StartJob, watcher: Watcher
) -> None:
    job_id = start_job(bench)
    bench.connection.execute("DELETE FROM opsjobs.audit_head")
    with pytest.raises(AuditHeadMissing):
        watcher.passes(times=12)
    assert bench.job(job_id)["state"] == "started"
    bench.connection.execute("INSERT INTO opsjobs.audit_head DEFAULT VALUES")
    assert [job.id for job in watcher.passes().rescued] == [job_id]
    assert len(events(bench)) == 1


def test_the_loop_tells_the_log_the_head_once_it_is_committed(
    make_bench: MakeBench, start_job: StartJob, caplog: pytest.LogCaptureFixture
) -> None:
    bench, other = make_bench(), make_bench()
    start_job(bench)
    loop = next(loop for loop in LOOPS if loop.name == "watch")
    passes = Runner(loop, bench.host, "one")
    now = Watcher(bench).now
    with caplog.at_level(logging.INFO, "flask_opsjobs.audit"):
        for number in range(20):
            passes.run_once(bench.connection, now + timedelta(seconds=10 * number))
    (event,) = events(other)
    assert caplog.messages.count(f"audit head 1:{event['hash'].hex()}") == 1
