"""An operator takes a job from a worker that is missing, has stopped or is unknown; no live one loses a job.

Tried in every state of job and worker, against the watch loop and a late finish, and killed in the middle.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import MANAGED_STATES
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline.watch import watch
from flask_opsjobs.workers import transitions as workers
from tests.actions.conftest import Reach
from tests.conftest import MakeBench
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench, race, take
from tests.support.processes import Children

WHY: dict[str, Any] = {"actor": "anna", "reason": "the machine burnt down"}
TIMES = range(8)
LOST = ("missing", "stopped", "unknown")
# As `sql/rescue_jobs.sql` leaves an attempt alone that began after its worker was given up.
LATER = timedelta(minutes=10)


def lose(bench: Bench, how: str) -> None:
    """Let the worker be missing, stopped or unknown since now."""
    now = read_clock(bench.connection)
    if how == "stopped":
        workers.stop(bench.connection, bench.worker_id, now)
    elif how == "unknown":
        bench.rows("DELETE FROM opsjobs.workers WHERE id = %s RETURNING 1", bench.worker_id)
    else:
        bench.rows(
            "UPDATE opsjobs.workers SET state = 'missing', ended_at = %s WHERE id = %s RETURNING 1",
            now,
            bench.worker_id,
        )


def later(bench: Bench) -> datetime:
    return read_clock(bench.connection) + LATER


@pytest.fixture(params=["automatic", "manual"])
def rescue(request: pytest.FixtureRequest, host: Host) -> str:
    """The setting: the action is legal with both of its values."""
    host.settings = replace(host.settings, rescue=request.param)
    return str(request.param)


@pytest.mark.parametrize("how", LOST)
def test_a_started_job_of_a_lost_worker(
    bench: Bench, operator: Operator, reach: Reach, rescue: str, how: str
) -> None:
    job_id = reach("started", max_attempts=2)
    lose(bench, how)
    receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
    assert [(c.what, c.before, c.after) for c in receipt.done[0].changes] == [
        ("state", "started", "available")
    ]
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    assert (job["state"], job["worker_id"], job["attempt"]) == ("available", None, 1)
    why = {
        "missing": "worker vanished: no heartbeat after ",
        "stopped": "its worker worker-1 stopped before the job ended",
        "unknown": f"its worker {bench.worker_id} is unknown",
    }[how]
    assert attempt["outcome"] == "lost"
    assert attempt["cause_of_death"].startswith(why)
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["action"], event["actor"], event["via"]) == ("job.rescue", "anna", "python")
    assert event["before"][f"job/{job_id}"]["state"] == "started"
    assert event["after"][f"job/{job_id}"]["state"] == "available"


@pytest.mark.parametrize(
    ("options", "is_wanted", "state"),
    [({}, False, "failed"), ({}, True, "canceled"), ({"max_attempts": 2}, True, "canceled")],
)
def test_the_plan_says_how_it_ends(
    bench: Bench,
    operator: Operator,
    reach: Reach,
    options: dict[str, Any],
    is_wanted: bool,
    state: str,
) -> None:
    job_id = reach("started", **{"max_attempts": 1, **options})
    if is_wanted:
        operator.cancel(job_id, **WHY)
    lose(bench, "missing")
    receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
    assert receipt.done[0].changes[0].after == state
    assert bench.job(job_id)["state"] == state


@pytest.mark.parametrize("how", LOST)
def test_a_reserved_job_of_a_lost_worker_costs_no_attempt(
    bench: Bench, operator: Operator, reach: Reach, rescue: str, how: str
) -> None:
    job_id = reach("available")
    assert take(bench) == [(job_id, 1)]
    lose(bench, how)
    receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
    assert receipt.done[0].changes[0].before == "reserved"
    job = bench.job(job_id)
    assert (job["state"], job["reserved_by"], job["attempt"]) == ("available", None, 0)
    assert job["lost_reservations"] == 1


@pytest.mark.parametrize("state", MANAGED_STATES)
def test_a_job_that_no_lost_worker_has(
    bench: Bench, operator: Operator, reach: Reach, state: str
) -> None:
    """Neither in any other state, nor `started` by a worker that lives."""
    job_id = reach(state)
    before = bench.job(job_id)
    receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    if state == "started":
        assert receipt.says.endswith("its worker worker-1 is alive, and may still run it")
    elif state == "queued":
        assert receipt.says.endswith("it is queued, and no worker has it")
    else:
        assert receipt.says == f"cannot rescue job {job_id}: it is {state}"
    assert bench.job(job_id) == before


def test_a_late_worker_keeps_its_jobs(bench: Bench, operator: Operator, reach: Reach) -> None:
    started, reserved = reach("started"), reach("available")
    assert take(bench) == [(reserved, 1)]
    bench.rows("UPDATE opsjobs.workers SET state = 'late' RETURNING 1")
    for job_id in (started, reserved):
        receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
        assert receipt.says.endswith("its worker worker-1 is late, and may still run it")
    assert (bench.job(started)["state"], bench.job(reserved)["state"]) == ("started", "queued")


@pytest.mark.parametrize("state", ["started", "queued"])
def test_what_a_worker_took_after_it_was_given_up_is_left_alone_for_a_while(
    bench: Bench, operator: Operator, reach: Reach, state: str
) -> None:
    """A frozen worker that goes on takes a job just before its heartbeat makes it alive again."""
    lose(bench, "missing")
    job_id = reach("started" if state == "started" else "available")
    if state == "queued":
        take(bench)
    receipt = operator.run("job.rescue", [f"job/{job_id}"], **WHY)
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    assert "may have come back: try again in 120 s" in receipt.says
    assert bench.job(job_id)["state"] == state
    assert operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench)).is_done


def test_a_worker_that_comes_back_makes_the_preview_drift(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("started")
    lose(bench, "missing")
    when = later(bench)
    preview = operator.preview("job.rescue", [f"job/{job_id}"], actor="anna", via="page", now=when)
    workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(1), read_clock(bench.connection)
    )
    receipt = operator.execute(preview.id, preview.token, **WHY, now=when)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    assert bench.job(job_id)["state"] == "started"


def test_only_the_named_jobs_of_a_worker(bench: Bench, operator: Operator, reach: Reach) -> None:
    one, other = reach("started", max_attempts=2), reach("started", max_attempts=2)
    lose(bench, "missing")
    operator.run("job.rescue", [f"job/{one}"], **WHY, now=later(bench))
    assert (bench.job(one)["state"], bench.job(other)["state"]) == ("available", "started")


def test_a_rescued_job_leaves_redis_and_is_dispatched_anew(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Any
) -> None:
    job_id = reach("started", max_attempts=2)
    lose(bench, "missing")
    operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=later(bench))
    bench.dispatch(prefetch=100)
    left = {key.decode().rpartition("opsjobs-")[2] for key in redis_client.keys("*opsjobs-*")}
    assert left == {f"{job_id}-2"}


# --- cancel, when the worker is gone


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("state", ["started", "queued"])
def test_a_canceled_job_of_a_lost_worker_ends_at_once(
    bench: Bench, operator: Operator, reach: Reach, rescue: str, state: str, how: str
) -> None:
    job_id = reach("started" if state == "started" else "available", max_attempts=3)
    if state == "queued":
        take(bench)
    lose(bench, how)
    receipt = operator.run("job.cancel", [f"job/{job_id}"], **WHY, now=later(bench))
    assert receipt.done[0].changes[0].after == "canceled"
    assert "so it ends now" in (receipt.done[0].note or "")
    job = bench.job(job_id)
    assert (job["state"], job["ended_reason"]) == ("canceled", WHY["reason"])


def test_who_asked_before_the_worker_was_lost_may_ask_again(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("started")
    operator.cancel(job_id, **WHY)
    lose(bench, "missing")
    assert operator.run("job.cancel", [f"job/{job_id}"], **WHY, now=later(bench)).is_done
    assert bench.job(job_id)["state"] == "canceled"


@pytest.mark.parametrize(
    ("setting", "words"),
    [("automatic", "and the watch loop rescues it"), ("manual", "and it is rescued")],
)
def test_a_cancel_tells_the_truth_about_a_worker_without_heartbeats(
    bench: Bench, host: Host, operator: Operator, reach: Reach, setting: str, words: str
) -> None:
    host.settings = replace(host.settings, rescue=setting)
    job_id = reach("started")
    bench.rows("UPDATE opsjobs.workers SET state = 'late' RETURNING 1")
    (item,) = operator.plan("job.cancel", [f"job/{job_id}"], actor="anna").items
    assert item.changes[0].after == "canceled, once it is stopped"
    assert "its worker worker-1 sends no heartbeat" in (item.note or "")
    assert (item.note or "").endswith(words)


# --- races


@pytest.mark.parametrize("time", TIMES)
def test_a_rescue_against_the_watch_loop(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    job_id = reach("started", max_attempts=2)
    lose(bench, "missing")
    when, loop = later(bench), make_bench()

    def sweep() -> int:
        with loop.connection.transaction():
            found = watch(loop.connection, when, 1, loop.host.settings, loop.host.secrets)
        return len(found.rescued)

    receipt, swept = race(
        lambda: operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=when), sweep
    )
    assert (receipt.is_done, swept) in [(True, 0), (False, 1)]
    job = bench.job(job_id)
    assert (job["state"], job["dispatch_no"], job["attempt"]) == ("available", 1, 1)
    assert bench.attempt(job_id)["outcome"] == "lost"
    done = bench.rows("SELECT actor FROM opsjobs.audit_events WHERE outcome = 'done'")
    assert [row["actor"] for row in done] == ["anna" if receipt.is_done else "system"]


@pytest.mark.parametrize("time", TIMES)
def test_a_rescue_against_a_late_finish(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    job_id = reach("started", max_attempts=2)
    lose(bench, "missing")
    when = later(bench)
    receipt, ended = race(
        lambda: operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=when),
        lambda: bench.record(job_id, 1, Outcome(kind="returned")),
    )
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    if receipt.is_done:
        assert (job["state"], attempt["outcome"], ended) == ("available", "lost", [])
    else:
        assert (job["state"], attempt["outcome"]) == ("finished", "returned")
        assert receipt.says == f"cannot rescue job {job_id}: it is finished"


# --- killed in the middle

KILLED = """
import sys
from datetime import datetime
from flask_opsjobs.actions.operator import Operator
from tests.support.dying import die_before
from tests.support.host import create_app
number, job, when = sys.argv[1:]
app = create_app()
with app.app_context():
    operator = Operator(app.extensions["opsjobs"])
    die_before(int(number))
    operator.run(
        "job.rescue", [f"job/{job}"], actor="anna", reason="the machine burnt down",
        now=datetime.fromisoformat(when),
    )
"""


@pytest.mark.slow
@pytest.mark.processes
def test_killed_in_the_middle_it_is_done_wholly_or_not_at_all(
    app: Flask,
    bench: Bench,
    operator: Operator,
    reach: Reach,
    children: Children,
    record_job: Callable[..., int],
) -> None:
    exit_code, number = -signal.SIGKILL, 0
    seen = set()
    while exit_code == -signal.SIGKILL:
        number += 1
        worker = Bench(bench.host, f"killed-{number}")
        job_id = record_job(max_attempts=2)
        bench.dispatch(prefetch=1_000)
        worker.claim(job_id)
        lose(worker, "missing")
        worker.close()
        when = later(bench)
        child = children.python("-c", KILLED, str(number), str(job_id), when.isoformat())
        exit_code = child.wait(60)
        wait_until_rolled_back(bench.connection)
        state = bench.job(job_id)["state"]
        audited = bench.rows(
            "SELECT 1 FROM opsjobs.audit_events WHERE subject = %s", f"job/{job_id}"
        )
        assert (state, len(audited)) in [("started", 0), ("available", 1)]
        assert bench.attempt(job_id)["outcome"] == ("lost" if audited else None)
        seen.add(state)
        again = operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=when)
        assert again.is_done == (state == "started")
    assert exit_code == 0
    assert seen == {"started", "available"}
