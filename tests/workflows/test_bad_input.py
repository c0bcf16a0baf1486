"""What comes at the wrong time, in the wrong size or not at all: each ends by name, and can be repaired."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import InvalidSignal, OpsJobs, Task
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings.fold import list_batches_to_fold
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import advance as advance_loop
from flask_opsjobs.loops import dispatch as dispatch_loop
from flask_opsjobs.loops import fold as fold_loop
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.graphs import Graph, begin
from tests.support.processes import Children
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


@pytest.fixture
def double(opsjobs: OpsJobs) -> Task:
    """A task that doubles what it gets."""

    @opsjobs.task(record_output=True, max_attempts=1)
    def double(value: Any = None) -> Any:
        return value * 2

    return double


def job_of(bench: Bench, name: str) -> dict[str, Any]:
    """The job of a step."""
    return bench.row(
        "SELECT j.* FROM opsjobs.jobs j JOIN opsjobs.steps s ON s.job_id = j.id WHERE s.name = %s",
        name,
    )


def run_of(bench: Bench, run: int) -> dict[str, Any]:
    """The row of a run, which must contradict no invariant."""
    assert checks(bench.connection) == []
    return bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)


def outcomes(bench: Bench) -> list[str]:
    """What came of each signal, the oldest first."""
    return [row["outcome"] for row in bench.rows("SELECT outcome FROM opsjobs.signals ORDER BY id")]


# --- results


class NoJson:
    """What no JSON can hold."""


def _no_json() -> NoJson:
    return NoJson()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(
            lambda: "x" * 50_000_000,
            "it was not kept: the result is 50000002 bytes as JSON, more than OPSJOBS_MAX_OUTPUT_BYTES = "
            "256000: store it elsewhere and return a reference to it",
            id="50 MB",
        ),
        pytest.param(
            lambda: "a\0b",
            "it was not kept: the result has a NUL character, which Postgres cannot store",
            id="NUL",
        ),
        pytest.param(
            _no_json,
            "it was not kept: the result is of type NoJson, which JSON does not know",
            id="no JSON",
        ),
    ],
)
def test_a_result_that_cannot_be_kept_ends_what_takes_it_and_a_skip_repairs_it(
    make: Callable[[], Any],
    why: str,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    double: Task,
) -> None:
    """Case 18: the step itself has finished, and what it returned is never read as null."""
    first = opsjobs.task(record_output=True, name="first")(make)
    flow = opsjobs.workflow("results")
    second = flow.step("second", double, value=flow.step("first", first).result)
    flow.step("third", double, value=second.result)
    run = flow.start()
    db.session.commit()
    perform_due()
    assert job_of(bench, "first")["state"] == "finished"
    job = job_of(bench, "second")
    assert (job["state"], job["ended_by"]) == ("failed", "result_missing")
    assert job["ended_reason"].startswith(f"value takes the result of step first, but {why}")
    assert run_of(bench, run.id)["ended_by_step"] == "second"
    opsjobs.operator.skip_step(run.id, "second", "known", **WHY)
    perform_due()
    assert run_of(bench, run.id)["state"] == "finished"


def test_a_result_that_was_deleted_ends_what_takes_it(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    flow = opsjobs.workflow("results")
    first = flow.step("first", double, value=1)
    approved = flow.wait("approved", signal="approved", after=first)
    flow.step("second", double, value=first.result, after=approved)
    flow.start()
    db.session.commit()
    perform_due()
    bench.connection.execute("DELETE FROM opsjobs.outputs")
    opsjobs.signal("approved")
    db.session.commit()
    perform_due()
    assert job_of(bench, "second")["ended_reason"] == (
        "value takes the result of step first, but it is not stored: its task was deployed without "
        "record_output=True, or it was deleted"
    )


def test_a_step_that_is_skipped_with_a_dict_where_a_list_is_mapped(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    """The map says so, and is repaired by a skip with a list of results."""
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", double, value=None)
    doubled = flow.map("doubled", double, over=numbers.result, as_="value")
    flow.step("all", double, value=doubled.results)
    run = flow.start()
    db.session.commit()
    perform_due()
    opsjobs.operator.skip_step(run.id, "numbers", {"a": 1}, **WHY)
    perform_due()
    job = job_of(bench, "doubled")
    assert (job["state"], job["ended_by"]) == ("failed", "invalid_args")
    assert job["ended_reason"] == (
        "over must be a list, it is a dict: skip this step with the list of its results, or let the step "
        "before it return a list"
    )
    assert run_of(bench, run.id)["ended_by_step"] == "doubled"
    opsjobs.operator.skip_step(run.id, "doubled", [2, 4], **WHY)
    perform_due()
    output = bench.row(
        "SELECT value FROM opsjobs.outputs WHERE job_id = %s", job_of(bench, "all")["id"]
    )
    assert output["value"] == [2, 4, 2, 4]
    assert run_of(bench, run.id)["state"] == "finished"


# --- callbacks


def test_a_callback_whose_task_is_gone_ends_by_name_and_a_retry_repairs_it(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    told: list[int] = []

    @opsjobs.task(name="report")
    def report(workflow_id: int) -> None:
        told.append(workflow_id)

    flow = opsjobs.workflow("told", on_end=report)
    flow.step("only", double, value=1)
    run = flow.start()
    db.session.commit()
    del opsjobs.tasks["report"]
    perform_due()
    assert run_of(bench, run.id)["state"] == "finished"
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = 'report'")
    assert (job["state"], job["ended_by"]) == ("failed", "unknown_task")
    assert "no task 'report' is declared here: import the module" in job["ended_reason"]
    opsjobs.tasks["report"] = report
    opsjobs.operator.retry(job["id"], **WHY)
    perform_due()
    assert told == [run.id]


# --- signals


def start_order(opsjobs: OpsJobs, double: Task, number: int = 1) -> int:
    """A run that waits for its payment, and then takes it."""
    flow = opsjobs.workflow("order")
    paid = flow.wait("paid", signal="payment", key=f"order-{number}")
    flow.step("book", double, value=paid.result)
    return flow.start().id


@pytest.mark.parametrize("order", ["signal first", "run first"])
def test_a_signal_in_the_transaction_that_starts_the_run(
    order: str, db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    """Both come with the commit, or none."""
    calls: list[Callable[[], Any]] = [
        lambda: opsjobs.signal("payment", key="order-1", payload=4),
        lambda: start_order(opsjobs, double),
    ]
    for call in calls if order == "signal first" else calls[::-1]:
        call()
    db.session.rollback()
    perform_due()
    assert outcomes(bench) == []
    assert bench.rows("SELECT 1 FROM opsjobs.workflows") == []
    for call in calls if order == "signal first" else calls[::-1]:
        call()
    db.session.commit()
    perform_due()
    assert outcomes(bench) == ["taken"]
    assert bench.row("SELECT state FROM opsjobs.workflows") == {"state": "finished"}


def test_a_signal_before_its_run_and_another_after_its_end(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    opsjobs.signal("payment", key="order-1", payload=4)
    db.session.commit()
    perform_due()
    assert outcomes(bench) == ["early"]
    run = start_order(opsjobs, double)
    db.session.commit()
    perform_due()
    assert run_of(bench, run)["state"] == "finished"
    opsjobs.signal("payment", key="order-1", payload=5)
    db.session.commit()
    perform_due()
    assert outcomes(bench) == ["taken", "late"]
    assert run_of(bench, run)["end_no"] == 1


@pytest.mark.parametrize("dedupe", ["evt_1", None])
def test_a_signal_that_is_sent_twice_ends_one_wait_once(
    dedupe: str | None, db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    """With `dedupe` it is counted, else it is a second signal, and late."""
    run = start_order(opsjobs, double)
    for payload in (4, 5):
        opsjobs.signal("payment", key="order-1", payload=payload, dedupe=dedupe)
        db.session.commit()
        perform_due()
    assert outcomes(bench) == (["taken"] if dedupe else ["taken", "late"])
    output = bench.row(
        "SELECT value FROM opsjobs.outputs WHERE job_id = %s", job_of(bench, "book")["id"]
    )
    assert output["value"] == 8
    assert run_of(bench, run)["end_no"] == 1


def test_a_signal_to_two_waits_ends_none_until_its_run_is_named(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    one, two = start_order(opsjobs, double), start_order(opsjobs, double)
    db.session.commit()
    perform_due()
    opsjobs.signal("payment", key="order-1", payload=4)
    db.session.commit()
    perform_due()
    assert outcomes(bench) == ["ambiguous"]
    reason = opsjobs.explain(_wait_of(bench, two)).reasons[0]
    assert "1 signal came, but several waits could take it, so none of them did" in reason.says
    opsjobs.signal("payment", key="order-1", payload=4, run=two)
    db.session.commit()
    perform_due()
    assert run_of(bench, one)["state"] == "running"
    assert run_of(bench, two)["state"] == "finished"


def _wait_of(bench: Bench, run: int) -> int:
    row = bench.row(
        "SELECT job_id FROM opsjobs.steps WHERE kind = 'wait' AND workflow_id = %s", run
    )
    found: int = row["job_id"]
    return found


def test_the_first_of_several_signals_ends_the_wait_and_the_other_holds_nothing_open(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    """Case 23."""
    flow = opsjobs.workflow("decision")
    flow.wait("decided", signals=["accepted", "refused"], key="offer-7")
    run = flow.start()
    db.session.commit()
    perform_due()
    for name in ("refused", "accepted"):
        opsjobs.signal(name, key="offer-7")
        db.session.commit()
        perform_due()
        assert run_of(bench, run.id)["state"] == "finished"
    assert outcomes(bench) == ["taken", "late"]


def test_a_payload_over_the_limit_is_refused_with_the_way_out(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    start_order(opsjobs, double)
    with pytest.raises(InvalidSignal) as refused:
        opsjobs.signal("payment", key="order-1", payload="x" * 2_000_000)
    assert "payload is 2000002 bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES" in str(
        refused.value
    )
    assert "store the value elsewhere and send a reference to it" in str(refused.value)
    db.session.commit()
    assert outcomes(bench) == []


# --- hosts that are slow, or die


def test_a_host_that_keeps_its_transaction_open_for_a_minute(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, host: Host, double: Task
) -> None:
    """It has added to a batch, started a run and sent a signal. Steps and members end meanwhile, and each
    pass of the loops goes on without it.
    """
    batch = opsjobs.batch("import").open()
    members = [batch.enqueue(double, 1).id for _ in range(3)]
    db.session.commit()
    graph = Graph.make(
        bench.connection, "a b c paid", ["a b", "b c"], waits={"paid": ("payment", "order-1")}
    )
    runners = [Runner(loop.LOOP, host) for loop in (advance_loop, fold_loop)]

    def make_passes(at: datetime) -> int:
        """Let each loop make a pass; return how many ends of members and of steps have been passed on."""
        for runner in runners:
            runner.run_once(bench.connection, at)
            assert runner.last_error is None
        ends = bench.row("SELECT coalesce(sum(number), 0) AS number FROM opsjobs.batch_ends")
        return min(int(ends["number"]), int(graph.row()["settled"]))

    with Session(host.engine) as session:
        opsjobs.batch(id=batch.id, session=session).enqueue(double, 1)
        opsjobs.chain("other", double.s(1)).start(session=session)
        opsjobs.signal("payment", key="order-1", session=session)
        bench.connection.execute("SET lock_timeout = '100ms'")
        now = read_clock(bench.connection)
        for number, (name, member) in enumerate(zip("abc", members, strict=True)):
            begin(graph, name)
            graph.end(name)
            _end_member(bench, member)
            at = now + timedelta(seconds=30 * number)
            # A loop leaves 20 ms between two turns of one run or batch.
            wait_until(lambda at=at, number=number: make_passes(at) == number + 1)
            assert graph.states()["paid"] == "deferred"
        session.commit()
    batch.close()
    db.session.commit()
    perform_due()
    assert graph.row()["state"] == "finished"
    assert bench.row("SELECT state, enqueued, lost FROM opsjobs.batches") == {
        "state": "finished",
        "enqueued": 4,
        "lost": 0,
    }


def _end_member(bench: Bench, job: int) -> None:
    """End a member as a worker does."""
    bench.dispatch(prefetch=1_000)
    number = bench.job(job)["dispatch_no"]
    bench.claim(job, number)
    bench.record(job, number, Outcome(kind="returned"))


DIES = """
import os, signal
from flask_opsjobs.engine.dispatch.after_commit import AfterCommitDispatch
from tests.support.host import add, create_app, db, give, opsjobs

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

AfterCommitDispatch.push = die
with create_app().app_context():
    opsjobs.signal("payment", key="order-1", payload=7)
    flow = opsjobs.workflow("order")
    paid = flow.wait("paid", signal="payment", key="order-1")
    flow.step("book", give, value=paid.result)
    flow.start()
    with opsjobs.batch("nothing"):
        pass
    add.enqueue(1, 2)
    db.session.commit()
"""


def test_a_host_that_commits_and_dies_before_the_hook(
    bench: Bench, host: Host, children: Children
) -> None:
    """The loops give its signal to the wait, end its batch and dispatch its job."""
    assert children.python("-c", DIES).wait(60) == -9
    assert outcomes(bench) == ["early"]
    assert list_batches_to_fold(bench.connection) != []
    for loop in (advance_loop, advance_loop, fold_loop, dispatch_loop):
        Runner(loop.LOOP, host).run_once(bench.connection)
    assert outcomes(bench) == ["taken"]
    assert (job_of(bench, "paid")["state"], job_of(bench, "book")["state"]) == (
        "finished",
        "queued",
    )
    assert bench.row("SELECT state FROM opsjobs.batches") == {"state": "finished"}
    assert bench.row("SELECT state FROM opsjobs.jobs WHERE workflow_id IS NULL") == {
        "state": "queued"
    }
