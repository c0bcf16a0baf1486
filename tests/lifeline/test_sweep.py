"""A sweep that rescues is one row in the audit, of the same transaction."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.audit.queries import list_events_of
from flask_opsjobs.audit.transitions import append_pending
from flask_opsjobs.audit.verify import verify
from flask_opsjobs.endings import MovedJob
from flask_opsjobs.lifeline.watch import MOST_NAMED, Swept, make_decision
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.lifeline.test_watch import Watcher, watcher
from tests.support.engine import Bench, race
from tests.support.processes import Children
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

__all__ = ["watcher"]

APPEND_AND_HOLD = """
import signal
from flask_opsjobs.audit.transitions import append_pending
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from tests.support.host import create_app

host = create_app().extensions["opsjobs"]
connection = connect_apart(host.engine)
with connection.transaction():
    append_pending(connection, host.secrets, read_clock(connection))
    print("appended", flush=True)
    signal.pause()
"""


def events(bench: Bench) -> list[dict[str, Any]]:
    """The audit, oldest first."""
    return bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")


def test_a_sweep_says_whose_jobs_it_rescued_which_and_why(
    bench: Bench, start_job: StartJob, watcher: Watcher
) -> None:
    again, last = start_job(bench), start_job(bench, max_attempts=1)
    watcher.passes(times=12)
    (event,) = events(bench)
    assert (event["actor"], event["via"], event["action"]) == ("system", "system", "job.rescue")
    assert (event["outcome"], event["at"]) == ("done", watcher.now)
    assert event["subject"] == f"2 jobs of {bench.name}"
    assert set(event["targets"]) == {f"job/{again}", f"job/{last}"}
    assert event["reason"].startswith("worker vanished: no heartbeat after")
    assert event["after"] == {
        f"worker/{bench.worker_id}": {
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


def test_several_workers_are_one_row(make_bench: MakeBench, start_job: StartJob) -> None:
    one, two = make_bench("one"), make_bench("two")
    found = Watcher(one)
    found.passes(0)
    start_job(one)
    start_job(two)
    found.passes(times=12)
    (event,) = events(one)
    assert event["subject"] == "2 jobs of 2 workers"
    assert set(event["after"]) == {f"worker/{bench.worker_id}" for bench in (one, two)}


def test_a_sweep_that_rescues_nothing_says_nothing(bench: Bench, start_job: StartJob) -> None:
    manual = Watcher(bench, rescue="manual")
    manual.passes(times=3)
    start_job(bench)
    assert manual.passes(times=14).abandoned == 1
    assert events(bench) == []


def test_one_row_names_some_and_counts_all() -> None:
    ended = [MovedJob(id, 1, "available", None, "w", "q", "q", False) for id in range(1, 251)]
    now = datetime.now(UTC)
    decision = make_decision(
        [Swept(7, "web-1", "gone", ended[:90]), Swept(8, None, "gone", ended[90:])], now
    )
    assert len(decision.targets) == MOST_NAMED
    assert decision.reason == "gone"
    assert [each["jobs"] for each in decision.after.values()] == [90, 160]
    assert [len(each["available"]) for each in decision.after.values()] == [90, 10]
    assert make_decision([Swept(8, None, "gone", ended[:1])], now).subject == "job/1"
    assert make_decision([Swept(8, None, "gone", ended)], now).subject == "250 jobs of worker 8"


BLOCK = """
    INSERT INTO opsjobs.audit_events
    SELECT (jsonb_populate_record(e, '{"sequence": 2}')).* FROM opsjobs.audit_events e
"""
REPAIR: list[str] = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/audit.md").read_text(), re.S)


def decide(bench: Bench) -> None:
    """The first row of the audit."""
    why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
    assert Operator(bench.host).set_prefetch("default", 1000, **why).audit_sequence == 1


@pytest.mark.parametrize(
    ("fault", "repair"),
    [
        (BLOCK, "audit_outside"),
        ("DELETE FROM opsjobs.audit_head", "INSERT INTO opsjobs.audit_head ("),
    ],
)
def test_while_the_audit_cannot_be_written_jobs_are_rescued_and_it_hears_of_them_later(
    fault: str, repair: str, bench: Bench, start_job: StartJob, watcher: Watcher, caplog: Any
) -> None:
    decide(bench)
    first, second = start_job(bench), start_job(bench, max_attempts=1)
    bench.connection.execute(fault)
    rescued = watcher.passes(times=12)
    assert {job.id for job in rescued.rescued} == {first, second}
    assert bench.job(first)["state"] == "available"
    done_at = watcher.now
    (line,) = [line for line in caplog.messages if "cannot be audited yet" in line]
    assert "flask opsjobs audit verify" in line
    watcher.passes()  # it cannot be written yet
    # The repair that the documentation gives, as the table's owner runs it.
    (found,) = [block for block in REPAIR if repair in block]
    bench.connection.execute(found)
    with Session(bench.host.engine) as session:
        assert verify(session, bench.host.secrets).state == "intact"
    watcher.passes(times=2)
    assert [event["sequence"] for event in events(bench)] == [1, 2]
    event = events(bench)[-1]
    assert (event["action"], event["actor"]) == ("job.rescue", "system")
    assert set(event["targets"]) == {f"job/{first}", f"job/{second}"}
    assert event["at"] == watcher.now - timedelta(seconds=10)
    done = f"done at {done_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, when the audit could not be written"
    assert event["reason"].endswith(done)
    assert bench.rows("SELECT 1 FROM opsjobs.audit_pending") == []
    with Session(bench.host.engine) as session:
        assert verify(session, bench.host.secrets).state == "intact"


def test_two_that_find_the_audit_written_again_append_what_waits_once(
    make_bench: MakeBench, start_job: StartJob
) -> None:
    bench, other = make_bench(), make_bench()
    decide(bench)
    watcher = Watcher(bench)
    watcher.passes(0)
    start_job(bench)
    bench.connection.execute(BLOCK)
    watcher.passes(times=12)
    (found,) = [block for block in REPAIR if "audit_outside" in block]
    bench.connection.execute(found)

    def append(connection: Any) -> Callable[[], None]:
        def act() -> None:
            with connection.transaction():
                append_pending(connection, bench.host.secrets, watcher.now)

        return act

    assert race(append(bench.connection), append(other.connection)) == [None, None]
    assert [event["action"] for event in events(bench)] == ["queue.set_prefetch", "job.rescue"]


def test_a_watcher_that_is_killed_leaves_what_waits(
    bench: Bench, start_job: StartJob, watcher: Watcher, children: Children
) -> None:
    decide(bench)
    start_job(bench)
    bench.connection.execute(BLOCK)
    watcher.passes(times=12)
    (found,) = [block for block in REPAIR if "audit_outside" in block]
    bench.connection.execute(found)
    child = children.python("-c", APPEND_AND_HOLD)
    child.wait_for("appended")
    child.kill()
    held = "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'idle in transaction'"
    wait_until(lambda: bench.row(held)["n"] == 0)
    assert len(events(bench)) == 1
    watcher.passes()
    assert [event["action"] for event in events(bench)] == ["queue.set_prefetch", "job.rescue"]


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
