"""What operators may do to workflows, and to jobs that are steps: every action in every state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import ActionRefused, OpsJobs, Task, Unique
from flask_opsjobs.actions.domain import Action
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS, actions_of
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.core.db import Connection
from flask_opsjobs.endings.advance import advance, list_runs_to_advance
from flask_opsjobs.host import Host
from flask_opsjobs.jobs import transitions as job_transitions
from flask_opsjobs.jobs.lifecycle import ARROWS as JOB_ARROWS
from flask_opsjobs.jobs.lifecycle import MANAGED_FINAL, WAITING
from flask_opsjobs.jobs.lifecycle import MANAGED_STATES as JOB_STATES
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows import transitions
from flask_opsjobs.workflows.checks import checks
from flask_opsjobs.workflows.lifecycle import ARROWS, OUTCOMES, STATES
from tests.conftest import MakeBench
from tests.support.engine import Bench, race
from tests.support.graphs import Graph
from tests.support.processes import Children
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
TIMES = range(8)
PAYMENT = ("payment", "order-1")
# A value for each parameter of the actions: on the step `a` that did not finish, and on the wait `paid`.
PARAMS = {
    "step": "a",
    "result": "42",
    "wait": "paid",
    "payload": "1",
    "signal": "1",
    "due_at": "2999-01-01T00:00",
    "queue": "mail",
    "priority": 1,
    "args": None,
}
WORKFLOW_ACTIONS = actions_of("workflow")
JOB_ACTIONS = actions_of("job")
# The arrow of a run that each action takes; a signal takes none.
ARROW_OF = {"cancel": "cancel", "retry": "reopen", "skip": "reopen"}


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


def settle(graph: Graph) -> None:
    """Advance until there is nothing more to do."""
    for _ in range(50):
        if graph.run not in list_runs_to_advance(graph.connection):
            break
        done = advance(graph.connection, graph.run, 1_000_000)
        if done is None or done.is_idle:
            break
    assert checks(graph.connection, [graph.run]) == []


def send_before(bench: Bench, outcome: str = "ambiguous", **values: Any) -> int:
    """A signal for the wait `paid` that was sent before; its id, which is 1 for the first one."""
    row = {"name": "payment", "key": "order-1", "run": None, "taken_by": None, **values}
    # Written directly: an ambiguous signal needs several waits, and a late one an ended wait.
    sent = bench.row(
        "INSERT INTO opsjobs.signals (name, key, run, taken_by, taken_at, payload, at, by, outcome)"
        " VALUES (%s, %s, %s, %s, CASE WHEN %s = 'taken' THEN now() END, '990', now(), 'host', %s)"
        " RETURNING id",
        *row.values(),
        outcome,
        outcome,
    )
    found: int = sent["id"]
    return found


def start_step(bench: Bench, graph: Graph, name: str) -> None:
    """Let a step run, as far as its row says."""
    # Written directly: nothing else of a started job matters here.
    bench.rows(
        "UPDATE opsjobs.jobs SET state = 'started', started_at = clock_timestamp(), attempt = 1,"
        " dispatch_no = 1, worker_id = %s WHERE id = %s RETURNING 1",
        bench.worker_id,
        graph.ids[name],
    )


def put(bench: Bench, graph: Graph, name: str, state: str) -> None:
    """Bring the job of a released step to this state."""
    if state in MANAGED_FINAL:
        graph.end(name, state)
        settle(graph)
    elif state == "started":
        start_step(bench, graph, name)
    else:
        # Written directly: what no statement of one test can reach.
        bench.rows(
            "UPDATE opsjobs.jobs SET state = %s, dispatched_at = clock_timestamp(), dispatch_no = 1"
            " WHERE id = %s RETURNING 1",
            state,
            graph.ids[name],
        )


@pytest.fixture
def reach(bench: Bench, operator: Operator) -> Callable[[str], Graph]:
    """Makes a run in a state, whose step `a` did not finish."""

    def reach(state: str) -> Graph:
        graph = Graph.make(
            bench.connection,
            "a b c paid",
            ["a b"],
            may_fail=["a", "b"] if state == "finished" else [],
            waits={"paid": PAYMENT},
        )
        settle(graph)
        if state in ("canceling", "canceled"):
            if state == "canceling":
                start_step(bench, graph, "c")
            assert operator.cancel_workflow(graph.run, **WHY).is_done
        else:
            graph.end("a", "failed")
            settle(graph)
        if state in ("finished", "failed"):
            graph.end("c")
            graph.end("paid")
            settle(graph)
        assert graph.row()["state"] == state
        return graph

    return reach


# --- every action in every state


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", WORKFLOW_ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_each_state(
    operator: Operator,
    reach: Callable[[str], Graph],
    bench: Bench,
    action: Action[Any],
    state: str,
) -> None:
    graph = reach(state)
    if "signal" in action.params:
        send_before(bench)
    before = (graph.row(), graph.states())
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"workflow/{graph.run}"], **WHY, params=params)
    name = ARROW_OF.get(action.short_name)
    arrows = [arrow for arrow in ARROWS if arrow.name == name]
    legal = arrows[0].sources if arrows else ("running",)
    assert (action in actions_of("workflow", state)) == (state in legal)
    if state not in legal:
        assert (receipt.outcome, receipt.code) == ("refused", "illegal")
        assert f"workflow {graph.run}: it is {state}; " in receipt.says
        moves = [each.title.lower() for each in actions_of("workflow", state)]
        assert receipt.says.endswith(
            f"legal now: {', '.join(moves)}" if moves else "wait until its steps are stopped"
        )
        assert (graph.row(), graph.states()) == before
        return
    assert receipt.is_done, receipt.says
    settle(graph)
    states = graph.states()
    if action.short_name == "cancel":
        assert graph.row()["state"] == "canceled"
        assert states == {"a": "failed", "b": "canceled", "c": "canceled", "paid": "canceled"}
    elif action.short_name == "retry":
        assert (states["a"], states["b"]) == ("available", "deferred")
        assert graph.row()["state"] == "running"
    elif action.short_name == "skip":
        assert states["a"] == "finished"
        # In the canceled run `b` was canceled by itself, not because of `a`.
        assert states["b"] == ("canceled" if state == "canceled" else "available")
        job = bench.job(graph.ids["a"])
        assert (job["ended_by"], job["ended_reason"]) == ("skipped", WHY["reason"])
        output = bench.row("SELECT value FROM opsjobs.outputs WHERE job_id = %s", job["id"])
        assert output["value"] == 42
    else:
        assert states["paid"] == "finished"
        # Who chose its wait is in the audit.
        by = "host" if "signal" in action.params else "anna"
        assert bench.row("SELECT outcome, by FROM opsjobs.signals") == {
            "outcome": "taken",
            "by": by,
        }


@pytest.mark.parametrize("state", JOB_STATES)
def test_a_skip_of_a_step_in_each_state(
    bench: Bench, operator: Operator, host: Host, state: str
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b"])
    put(bench, graph, "a", state)
    params = {"step": "a", "result": '{"amount": 9}'}
    receipt = operator.run("workflow.skip", [f"workflow/{graph.run}"], **WHY, params=params)
    (arrow,) = [arrow for arrow in JOB_ARROWS if arrow.name == "skip"]
    if state in arrow.sources:
        assert receipt.is_done, receipt.says
        settle(graph)
        assert (graph.states()["a"], graph.states()["b"]) == ("finished", "available")
        return
    moves = ("retry", "cancel", "discard", "reschedule")
    legal = [arrow.name for arrow in JOB_ARROWS if state in arrow.sources and arrow.name in moves]
    words = f"; legal for this step: {', '.join(legal)}" if legal else ""
    assert receipt.says == (f"cannot skip a step of workflow {graph.run}: step a is {state}{words}")
    assert graph.states()["a"] == state


@pytest.mark.parametrize("state", JOB_STATES)
@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_the_job_of_a_step_in_each_state(
    bench: Bench, operator: Operator, action: Action[Any], state: str
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b"])
    put(bench, graph, "a", state)
    job_id = graph.ids["a"]
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"job/{job_id}"], **WHY, params=params)
    if action.short_name == "delete":
        assert receipt.says == (
            f"cannot delete job {job_id}: it is step a of workflow {graph.run}, which is running; "
            "cancel the workflow, or wait for its end"
        )
        assert graph.states()["a"] == state
        return
    if state not in action.sources:
        assert receipt.code == "illegal"
        assert f"job {job_id}: it is {state}" in receipt.says or "again" in receipt.says
        assert graph.states()["a"] == state
        return
    if action.is_repair and action.short_name != "skip":
        assert receipt.code == "illegal", "nothing is broken: no worker is gone"
        assert graph.states()["a"] == state
        return
    assert receipt.is_done, receipt.says
    # The operator has advanced the run: what an end means for others is done without the loop.
    assert checks(bench.connection) == []
    states = graph.states()
    if action.short_name == "retry":
        assert (states["a"], states["b"]) == ("available", "deferred")
    elif action.short_name == "skip":
        assert (states["a"], states["b"]) == ("finished", "available")
        assert bench.row("SELECT value FROM opsjobs.outputs WHERE job_id = %s", job_id) == {
            "value": None
        }
    elif action.short_name in ("reschedule", "edit"):
        edited = "available" if state == "queued" else state
        moved = "scheduled" if action.short_name == "reschedule" else edited
        assert (states["a"], states["b"]) == (moved, "deferred")
    elif action.short_name in ("cancel", "discard") and state in WAITING:
        assert states["a"] == ("canceled" if action.short_name == "cancel" else "failed")
        assert states["b"] == "canceled"
    elif action.short_name == "run_again":
        new = bench.row("SELECT * FROM opsjobs.jobs WHERE run_again_from = %s", job_id)
        assert new["workflow_id"] is None
        assert f"is no step of workflow {graph.run}" in (
            operator.plan(action.name, [f"job/{job_id}"], actor="anna").items[0].note or ""
        )
    else:
        assert bench.job(job_id)["cancel_requested_by"] == "anna"


def test_steps_are_skipped_together_with_those_that_they_doomed(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(bench.connection, "a b c d", ["a b", "b c"])
    put(bench, graph, "a", "failed")
    settle(graph)
    assert graph.states()["b"] == graph.states()["c"] == "canceled"
    receipt = operator.skip([graph.ids["a"], graph.ids["b"]], **WHY)
    assert [item.target for item in receipt.done] == [f"job/{graph.ids[step]}" for step in "ab"]
    settle(graph)
    assert [graph.states()[step] for step in "abc"] == ["finished", "finished", "available"]
    assert checks(graph.connection) == []


@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
def test_a_canceling_workflow_refuses_actions_on_its_steps(
    operator: Operator, reach: Callable[[str], Graph], action: Action[Any]
) -> None:
    graph = reach("canceling")
    job_id = graph.ids["c" if "started" in action.sources else "a"]
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"job/{job_id}"], **WHY, params=params)
    if action.short_name == "run_again":
        assert receipt.is_done
        return
    assert receipt.code == "illegal"
    assert f"of workflow {graph.run}, which is canceling; wait until" in receipt.says


def test_a_step_of_an_ended_workflow_may_be_deleted(
    operator: Operator, reach: Callable[[str], Graph]
) -> None:
    graph = reach("failed")
    assert operator.delete(graph.ids["a"], **WHY).is_done
    assert "a" not in graph.states()
    assert checks(graph.connection) == []


# --- what a retry and a skip mean for other steps


def test_a_retry_of_a_doomed_step_names_the_step_to_retry_or_skip(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(bench.connection, "a b c d", ["a b", "b c", "d c"])
    graph.end("a", "failed")
    settle(graph)
    receipt = operator.run("job.retry", [f"job/{graph.ids['c']}"], **WHY)
    assert receipt.says == (
        f"cannot retry job {graph.ids['c']}: it was canceled because step a did not finish; "
        "retry or skip a, or skip this step"
    )
    graph.end("d", "failed")
    settle(graph)
    assert operator.retry(graph.ids["a"], **WHY).is_done
    receipt = operator.run("job.retry", [f"job/{graph.ids['c']}"], **WHY)
    assert "because step d did not finish" in receipt.says
    assert graph.states() == {"a": "available", "b": "deferred", "c": "canceled", "d": "failed"}


def test_a_retry_of_a_job_that_is_a_step_reopens_what_it_doomed_and_says_so(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
    graph.end("a", "failed")
    settle(graph)
    receipt = operator.retry(graph.ids["a"], **WHY)
    changes = [(one.what, one.before, one.after) for one in receipt.done[0].changes]
    assert (f"workflow {graph.run}", "failed", "running") in changes
    assert ("2 steps behind", "canceled", "deferred") in changes
    assert graph.states() == {"a": "available", "b": "deferred", "c": "deferred"}
    assert checks(bench.connection) == []


def test_steps_and_plain_jobs_are_retried_together(
    bench: Bench, operator: Operator, record_job: Callable[..., int]
) -> None:
    one, two = (Graph.make(bench.connection, "a b", ["a b"]) for _ in range(2))
    alone = record_job()
    for graph in (one, two):
        graph.end("a", "failed")
        settle(graph)
    operator.discard(alone, **WHY)
    receipt = operator.retry([two.ids["a"], alone, one.ids["a"]], **WHY)
    assert len(receipt.done) == 3
    for graph in (one, two):
        assert graph.states() == {"a": "available", "b": "deferred"}
    assert bench.job(alone)["state"] == "available"
    assert checks(bench.connection) == []


def test_a_wait_that_timed_out_is_opened_anew_by_a_retry(bench: Bench, operator: Operator) -> None:
    graph = Graph.make(bench.connection, "paid b", ["paid b"], waits={"paid": PAYMENT})
    bench.rows("UPDATE opsjobs.steps SET timeout_seconds = 60 WHERE kind = 'wait' RETURNING 1")
    settle(graph)
    first = bench.job(graph.ids["paid"])["deadline_at"]
    assert first is not None
    graph.end("paid", "failed")
    settle(graph)
    receipt = operator.retry(graph.ids["paid"], **WHY)
    assert receipt.done[0].changes[0].after == "deferred"
    settle(graph)
    job = bench.job(graph.ids["paid"])
    assert (job["state"], graph.states()["b"]) == ("deferred", "deferred")
    assert job["deadline_at"] > first
    assert operator.send_signal(graph.run, "paid", {"amount": 1}, **WHY).is_done
    assert graph.states() == {"paid": "finished", "b": "available"}
    assert checks(bench.connection) == []


def test_a_cancel_reaches_every_step(bench: Bench, operator: Operator) -> None:
    """Case 13: what waits ends at once, and the run ends when the step that ran has been stopped."""
    graph = Graph.make(bench.connection, "a b c paid", ["a b"], waits={"paid": PAYMENT})
    settle(graph)
    start_step(bench, graph, "a")
    operator.cancel_workflow(graph.run, **WHY)
    assert graph.states() == {"a": "started", "b": "canceled", "c": "canceled", "paid": "canceled"}
    assert bench.job(graph.ids["a"])["cancel_requested_by"] == "anna"
    assert graph.row()["state"] == "canceling"
    graph.end("a", "canceled")
    settle(graph)
    assert graph.row()["state"] == "canceled"


def test_a_retry_of_a_canceled_workflow_begins_where_it_was_stopped(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(
        bench.connection, "a b paid c", ["a b", "a paid", "paid c"], waits={"paid": PAYMENT}
    )
    graph.end("a")
    settle(graph)
    operator.cancel_workflow(graph.run, **WHY)
    assert set(graph.states().values()) == {"finished", "canceled"}
    operator.retry_workflow(graph.run, **WHY)
    settle(graph)
    expected = {"a": "finished", "b": "available", "paid": "deferred", "c": "deferred"}
    assert graph.states() == expected
    row = graph.row()
    assert (row["state"], row["cancel_requested_by"]) == ("running", None)


@pytest.mark.parametrize("name", ["run_again", "retry"])
def test_the_job_of_a_wait_is_never_run(bench: Bench, operator: Operator, name: str) -> None:
    graph = Graph.make(bench.connection, "paid b", ["paid b"], waits={"paid": PAYMENT})
    settle(graph)
    graph.end("paid", "failed")
    settle(graph)
    operator.run(f"job.{name}", [f"job/{graph.ids['paid']}"], **WHY)
    assert bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'available'")["n"] == 0


def test_a_skip_of_a_unique_step_that_waits_releases_its_lock(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy, fetch: Task
) -> None:
    @opsjobs.task(unique=Unique(until="ended"))
    def notify(account_id: int) -> None: ...

    flow = opsjobs.workflow("unique")
    first = flow.step("first", fetch)
    flow.step("notify", notify, account_id=7, after=first)
    run = flow.start()
    db.session.commit()
    assert operator.skip_step(run.id, "notify", **WHY).is_done
    enqueued = notify.enqueue(account_id=7)
    db.session.commit()
    assert not enqueued.conflict
    assert bench.rows("SELECT job_id FROM opsjobs.unique_locks") == [{"job_id": enqueued.id}]


def test_a_retry_that_needs_a_unique_lock_of_another_job_names_it(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy, fetch: Task
) -> None:
    @opsjobs.task(unique=Unique(until="ended"))
    def notify(account_id: int) -> None: ...

    flow = opsjobs.workflow("unique")
    first = flow.step("first", fetch)
    flow.step("notify", notify, account_id=7, after=first)
    run = flow.start()
    db.session.commit()
    (job,) = bench.rows("SELECT id FROM opsjobs.jobs WHERE task LIKE '%%fetch'")
    operator.discard(job["id"], **WHY)
    rival = notify.enqueue(account_id=7)
    db.session.commit()
    says = f"job {rival.id} has the unique lock of step notify"
    for action, target, params in (
        ("workflow.retry", f"workflow/{run.id}", {}),
        ("workflow.skip", f"workflow/{run.id}", {"step": "first", "result": ""}),
        ("job.retry", f"job/{job['id']}", {}),
    ):
        receipt = operator.run(action, [target], **WHY, params=params)
        assert receipt.skipped[0].code == "duplicate"
        assert says in receipt.says
    operator.cancel(rival.id, **WHY)
    assert operator.retry_workflow(run.id, **WHY).is_done
    assert checks(bench.connection) == []


def test_a_workflow_is_not_reopened_beside_another_of_the_same_unique_key(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy, fetch: Task
) -> None:
    flow = opsjobs.workflow("once")
    flow.step("first", fetch)
    old = flow.start(unique="account-42")
    db.session.commit()
    operator.cancel_workflow(old.id, **WHY)
    new = flow.start(unique="account-42")
    db.session.commit()
    (job,) = bench.rows("SELECT id FROM opsjobs.jobs WHERE workflow_id = %s", old.id)
    for action, target in (
        ("workflow.retry", f"workflow/{old.id}"),
        ("job.retry", f"job/{job['id']}"),
    ):
        receipt = operator.run(action, [target], **WHY)
        assert f"workflow {new.id} is open with the same unique key" in receipt.says
    operator.cancel_workflow(new.id, **WHY)
    assert operator.retry_workflow(old.id, **WHY).is_done
    with pytest.raises(Exception, match=f"workflow {old.id} is open"):
        operator.retry_workflow(new.id, **WHY)


def test_of_runs_that_need_the_same_unique_lock_the_first_is_retried(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    """Only one of them can take it, and the action goes through."""

    @opsjobs.task(unique=Unique(until="ended"))
    def notify(account_id: int) -> None:
        raise OSError("away")

    runs = []
    for _ in range(2):
        flow = opsjobs.workflow("unique")
        flow.step("notify", notify.options(max_attempts=1), account_id=7)
        runs.append(flow.start().id)
        db.session.commit()
        perform_due()
    targets = [f"workflow/{run}" for run in runs]
    jobs = [row["id"] for row in bench.rows("SELECT id FROM opsjobs.jobs ORDER BY id")]
    preview = operator.preview("workflow.retry", targets, actor="anna", via="page")
    (skip,) = preview.plan.skipped
    says = f"job {jobs[0]} has the unique lock of step notify"
    assert (skip.target, skip.code) == (targets[1], "duplicate")
    assert says in skip.says
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.is_done, receipt.says
    assert ([item.target for item in receipt.done], receipt.skipped) == (targets[:1], (skip,))
    perform_due()
    receipt = operator.run("workflow.retry", targets[1:], **WHY)
    assert receipt.is_done, "the lock is free again"


def test_of_ended_runs_with_the_same_unique_key_the_first_is_retried(
    operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    @opsjobs.task(max_attempts=1)
    def fail() -> None:
        raise OSError("away")

    runs = []
    for _ in range(2):
        flow = opsjobs.workflow("unique")
        flow.step("fail", fail)
        runs.append(flow.start(unique="account-7").id)
        db.session.commit()
        perform_due()
    receipt = operator.run("workflow.retry", [f"workflow/{run}" for run in runs], **WHY)
    assert receipt.is_done, receipt.says
    (skip,) = receipt.skipped
    assert skip.code == "duplicate"
    assert f"workflow {runs[0]}, which is reopened too, has the same unique key" in skip.says


def test_a_skipped_map_has_the_given_list_as_its_results(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy, fetch: Task, bill: Task
) -> None:
    @opsjobs.task(record_output=True)
    def add(values: list[int]) -> int:
        return sum(values)

    flow = opsjobs.workflow("map")
    first = flow.step("first", fetch)
    bills = flow.map("bills", bill, over=first.result["pictures"], as_="note")
    flow.step("sum", add, values=bills.results)
    run = flow.start()
    db.session.commit()
    (of_map,) = bench.rows("SELECT job_id FROM opsjobs.steps WHERE name = 'bills'")
    with pytest.raises(ActionRefused, match="it is a map, whose result is a list: skip step bills"):
        operator.skip(of_map["job_id"], **WHY)
    with pytest.raises(Exception, match="step bills is a map, so its result must be a list"):
        operator.skip_step(run.id, "bills", {"no": "list"}, **WHY)
    operator.skip_step(run.id, "bills", [1, 2, 3], **WHY)
    perform_due()
    row = bench.row(
        "SELECT o.value FROM opsjobs.steps s JOIN opsjobs.outputs o USING (job_id)"
        " WHERE s.name = 'sum'"
    )
    assert row["value"] == 6
    assert checks(bench.connection) == []


# --- signals


@pytest.mark.parametrize("state", ["deferred", *MANAGED_FINAL])  # a wait is never due
def test_a_signal_to_a_wait_in_each_state(bench: Bench, operator: Operator, state: str) -> None:
    graph = Graph.make(bench.connection, "paid b", [], waits={"paid": PAYMENT})
    settle(graph)
    if state != "deferred":
        graph.end("paid", state)
        settle(graph)
    params = {"wait": "paid", "payload": '{"amount": 990}'}
    receipt = operator.run("workflow.signal", [f"workflow/{graph.run}"], **WHY, params=params)
    if state == "deferred":
        assert receipt.is_done
        assert graph.states()["paid"] == "finished"
        return
    assert f"wait paid is {state}" in receipt.says
    assert ("legal for this step: skip, retry" in receipt.says) == (state != "finished")
    assert bench.rows("SELECT 1 FROM opsjobs.signals") == []


def test_a_refusal_offers_no_retry_of_a_step_that_was_canceled_because_of_another(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(bench.connection, "a b paid", ["a paid"], waits={"paid": PAYMENT})
    graph.end("a", "failed")
    settle(graph)
    run, paid = f"workflow/{graph.run}", f"job/{graph.ids['paid']}"
    signal = {"wait": "paid", "payload": "7"}
    receipts = [
        operator.run("job.cancel", [paid], **WHY),
        operator.run("workflow.signal", [run], **WHY, params=signal),
    ]
    for receipt in receipts:
        assert receipt.says.endswith("is canceled; legal for this step: skip")
    assert not operator.run("job.retry", [paid], **WHY).is_done
    skip = {"step": "paid", "result": "7"}
    assert operator.run("workflow.skip", [run], **WHY, params=skip).is_done


def test_a_signal_ends_the_named_wait_although_others_are_open_for_it(
    bench: Bench, operator: Operator
) -> None:
    graph = Graph.make(bench.connection, "one two", [], waits={"one": PAYMENT, "two": PAYMENT})
    other = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    settle(graph)
    settle(other)
    assert operator.send_signal(graph.run, "two", {"amount": 2}, **WHY).is_done
    assert graph.states() == {"one": "deferred", "two": "finished"}
    assert other.states() == {"paid": "deferred"}
    row = bench.row("SELECT taken_by, outcome FROM opsjobs.signals")
    assert row == {"taken_by": graph.ids["two"], "outcome": "taken"}


def test_a_signal_before_the_wait_opens_is_kept_for_it(bench: Bench, operator: Operator) -> None:
    graph = Graph.make(bench.connection, "a paid", ["a paid"], waits={"paid": PAYMENT})
    receipt = operator.send_signal(graph.run, "paid", 7, **WHY)
    assert "it is not open yet" in (receipt.done[0].note or "")
    assert graph.states() == {"a": "available", "paid": "deferred"}
    graph.end("a")
    settle(graph)
    assert graph.states()["paid"] == "finished"


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_signal_of_each_outcome_is_given_to_a_wait(
    bench: Bench, operator: Operator, outcome: str
) -> None:
    other = Graph.make(bench.connection, "paid b", [], waits={"paid": PAYMENT})
    graph = Graph.make(bench.connection, "paid b", ["paid b"], waits={"paid": PAYMENT})
    settle(other)
    settle(graph)
    taken_by = other.ids["paid"] if outcome == "taken" else None
    signal = send_before(bench, outcome, taken_by=taken_by)
    params = {"wait": "paid", "signal": str(signal)}
    receipt = operator.run("workflow.give_signal", [f"workflow/{graph.run}"], **WHY, params=params)
    if outcome == "taken":
        assert receipt.says == (
            f"cannot give a signal to workflow {graph.run}: signal {signal} has ended the wait of job "
            f"{taken_by}; send another signal"
        )
        assert graph.states() == {"paid": "deferred", "b": "deferred"}
        return
    assert receipt.is_done, receipt.says
    assert graph.states() == {"paid": "finished", "b": "available"}
    assert other.states()["paid"] == "deferred"
    row = bench.row("SELECT outcome, taken_by FROM opsjobs.signals")
    assert row == {"outcome": "taken", "taken_by": graph.ids["paid"]}
    output = bench.row("SELECT value FROM opsjobs.outputs")
    assert output["value"] == 990
    event = bench.row("SELECT action, actor, reason, before, after FROM opsjobs.audit_events")
    target = f"workflow/{graph.run}"
    assert (event["action"], event["actor"]) == ("workflow.give_signal", "anna")
    assert event["before"][target]["signal"] == f"{signal}, {outcome}"
    assert event["after"][target]["signal"] == f"{signal}, taken"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"key": "order-2"},
            "signal 1 is for waits for payment with the key order-2, and wait paid is for payment with the "
            "key order-1; send another signal",
        ),
        (
            {"name": "refund", "key": ""},
            "signal 1 is for waits for refund without a key, and wait paid",
        ),
        ({"run": 99}, "signal 1 is for waits of workflow 99 for payment"),
    ],
)
def test_a_signal_for_something_else_is_not_given(
    bench: Bench, operator: Operator, values: dict[str, Any], says: str
) -> None:
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    settle(graph)
    send_before(bench, **values)
    with pytest.raises(ActionRefused) as refused:
        operator.give_signal(graph.run, "paid", 1, **WHY)
    assert says in str(refused.value)
    assert graph.states() == {"paid": "deferred"}
    assert bench.row("SELECT outcome FROM opsjobs.signals") == {"outcome": "ambiguous"}


def test_a_signal_is_given_to_an_open_wait_only(bench: Bench, operator: Operator) -> None:
    graph = Graph.make(bench.connection, "a paid", ["a paid"], waits={"paid": PAYMENT})
    signal = send_before(bench)
    with pytest.raises(ActionRefused, match="wait paid is not open yet; give it when it is open"):
        operator.give_signal(graph.run, "paid", signal, **WHY)
    graph.end("a")
    settle(graph)
    with pytest.raises(ActionRefused, match="there is no signal 99"):
        operator.give_signal(graph.run, "paid", 99, **WHY)
    assert operator.give_signal(graph.run, "paid", signal, **WHY).is_done
    with pytest.raises(ActionRefused, match="it is finished, as are all its steps; no action"):
        operator.give_signal(graph.run, "paid", signal, **WHY)


def test_one_signal_is_not_given_to_two_workflows(bench: Bench, operator: Operator) -> None:
    graphs = [Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT}) for _ in range(2)]
    for graph in graphs:
        settle(graph)
    params = {"wait": "paid", "signal": send_before(bench)}
    targets = [f"workflow/{graph.run}" for graph in graphs]
    receipt = operator.run("workflow.give_signal", targets, **WHY, params=params)
    assert receipt.says == "a signal ends one wait: name one workflow"
    assert [graph.states()["paid"] for graph in graphs] == ["deferred"] * 2


# --- bad input


@pytest.mark.parametrize(
    ("action", "params", "says"),
    [
        ("skip", {"step": "nobody", "result": ""}, "it has no step nobody"),
        ("skip", {"step": "", "result": ""}, "step is the name of a step of the workflow"),
        ("skip", {"step": "a\0", "result": ""}, "step is the name of a step of the workflow"),
        ("skip", {"step": "a", "result": "{"}, "result is JSON such as"),
        ("skip", {"step": "a", "result": "NaN"}, "result is JSON such as"),
        ("skip", {"step": "a", "result": '"\\u0000"'}, "NUL"),
        ("skip", {"step": "a", "result": '"\\ud800"'}, "surrogate"),
        ("skip", {"step": "a", "result": "[" * 100_000}, "nested too deep"),
        ("skip", {"step": "a", "result": '"' + "x" * 2_000_000 + '"'}, "OPSJOBS_MAX_OUTPUT_BYTES"),
        ("skip", {"step": "a"}, "needs the parameter result"),
        ("signal", {"wait": "a", "payload": ""}, "it has no wait a"),
        ("signal", {"wait": "paid", "payload": "x"}, "payload is JSON such as"),
        (
            "signal",
            {"wait": "paid", "payload": '"' + "x" * 2_000_000 + '"'},
            "OPSJOBS_MAX_ARGS_BYTES",
        ),
        ("give_signal", {"wait": "a", "signal": "1"}, "it has no wait a"),
        (
            "give_signal",
            {"wait": "paid", "signal": "x"},
            "signal is the id of a signal, such as 17",
        ),
        ("give_signal", {"wait": "paid", "signal": -1}, "signal is the id of a signal, such as 17"),
        ("give_signal", {"wait": "paid", "signal": "9" * 19}, "signal is the id of a signal"),
        ("give_signal", {"wait": "paid"}, "needs the parameter signal"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    operator: Operator,
    reach: Callable[[str], Graph],
    action: str,
    params: dict[str, str],
    says: str,
) -> None:
    graph = reach("running")
    before = graph.states()
    with pytest.raises(Exception, match=says) as refused:
        operator._run_or_raise(f"workflow.{action}", graph.run, WHY, params)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 500
    assert graph.states() == before


@pytest.mark.parametrize(
    "target", ["workflow/", "workflow/x", "workflow/-1", "workflow/" + "9" * 101]
)
def test_what_names_no_workflow_is_no_target(operator: Operator, target: str) -> None:
    with pytest.raises(Exception, match="is not a target"):
        operator.plan("workflow.cancel", [target], actor="anna")


def test_a_workflow_that_does_not_exist(operator: Operator, bench: Bench) -> None:
    receipt = operator.run("workflow.cancel", ["workflow/99"], **WHY)
    assert (receipt.code, receipt.says) == ("unknown_target", "there is no workflow 99")


# --- previews


def preview(operator: Operator, graph: Graph, action: str) -> Callable[[], Receipt]:
    """Preview an action; returns what executes it."""
    params = {param: PARAMS[param] for param in ACTIONS[f"workflow.{action}"].params}
    made = operator.preview(
        f"workflow.{action}", [f"workflow/{graph.run}"], actor="anna", via="page", params=params
    )
    return lambda: operator.execute(made.id, made.token, **WHY)


@pytest.mark.parametrize("action", [action.short_name for action in WORKFLOW_ACTIONS])
def test_a_preview_holds_while_other_steps_end(
    bench: Bench, operator: Operator, reach: Callable[[str], Graph], action: str
) -> None:
    graph = reach("running")
    send_before(bench)
    execute = preview(operator, graph, action)
    graph.end("c")
    settle(graph)
    assert execute().is_done


@pytest.mark.parametrize("action", ["retry", "skip"])
def test_a_preview_drifts_when_its_step_changes(
    operator: Operator, reach: Callable[[str], Graph], action: str
) -> None:
    graph = reach("running")
    execute = preview(operator, graph, action)
    operator.retry(graph.ids["a"], **WHY)
    graph.end("a", "failed")
    settle(graph)
    graph.connection.execute(
        "UPDATE opsjobs.jobs SET dispatch_no = 2 WHERE id = %s", [graph.ids["a"]]
    )
    receipt = execute()
    assert (receipt.code, [change.what for change in receipt.drifted]) == (
        "drifted",
        [f"workflow/{graph.run} steps"],
    )


def test_a_preview_drifts_when_another_wait_took_the_signal(
    bench: Bench, operator: Operator, reach: Callable[[str], Graph]
) -> None:
    graph, other = reach("running"), reach("running")
    signal = send_before(bench)
    execute = preview(operator, graph, "give_signal")
    operator.give_signal(other.run, "paid", signal, **WHY)
    receipt = execute()
    assert receipt.code == "drifted"
    changed = {change.what: (change.before, change.after) for change in receipt.drifted}
    assert changed[f"workflow/{graph.run} signal"] == (f"{signal}, ambiguous", f"{signal}, taken")
    assert graph.states()["paid"] == "deferred"


def test_the_audit_of_many_steps_is_short(bench: Bench, operator: Operator) -> None:
    names = [f"s{number}" for number in range(300)]
    graph = Graph.make(bench.connection, " ".join(names), [])
    for name in names:
        graph.end(name, "failed")
    settle(graph)
    assert operator.retry_workflow(graph.run, **WHY).is_done
    event = bench.row("SELECT before FROM opsjobs.audit_events")
    assert len(json.dumps(event["before"])) < 500
    assert set(graph.states().values()) == {"available"}


# --- races


def codes(receipts: Iterable[Receipt]) -> list[str]:
    """What came of each: its code, or `done`."""
    return [receipt.code or receipt.outcome for receipt in receipts]


@pytest.mark.parametrize("time", TIMES)
def test_a_skip_against_the_release(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
    graph.end("a")
    other = make_bench().connection
    params = {"step": "b", "result": "1"}
    receipt, _ = race(
        lambda: operator.run("workflow.skip", [f"workflow/{graph.run}"], **WHY, params=params),
        lambda: advance(other, graph.run, 1_000_000),
    )
    settle(graph)
    expected = ("finished", "available") if receipt.is_done else ("available", "deferred")
    assert (graph.states()["b"], graph.states()["c"]) == expected
    assert codes([receipt])[0] in ("done", "illegal")


@pytest.mark.parametrize("time", TIMES)
def test_a_cancel_against_the_end(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    graph = Graph.make(bench.connection, "a", [])
    graph.end("a")
    other = make_bench().connection
    receipt, _ = race(
        lambda: operator.run("workflow.cancel", [f"workflow/{graph.run}"], **WHY),
        lambda: advance(other, graph.run, 1_000_000),
    )
    settle(graph)
    # A cancel that stopped nothing changes no outcome.
    row = graph.row()
    assert (row["state"], row["end_no"]) == ("finished", 1)
    assert codes([receipt])[0] in ("done", "illegal")


@pytest.mark.parametrize("time", TIMES)
def test_a_retry_against_the_advance(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
    graph.end("a", "failed")
    other = make_bench().connection
    receipt, _ = race(
        lambda: operator.run("job.retry", [f"job/{graph.ids['a']}"], **WHY),
        lambda: advance(other, graph.run, 1_000_000),
    )
    assert receipt.is_done
    settle(graph)
    assert graph.states() == {"a": "available", "b": "deferred", "c": "deferred"}
    assert graph.row()["state"] == "running"


@pytest.mark.parametrize("time", TIMES)
def test_a_signal_against_the_opening_wait(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    graph = Graph.make(bench.connection, "a paid b", ["a paid", "paid b"], waits={"paid": PAYMENT})
    graph.end("a")
    other = make_bench().connection
    receipt, _ = race(
        lambda: operator.send_signal(graph.run, "paid", 1, **WHY),
        lambda: advance(other, graph.run, 1_000_000),
    )
    assert receipt.is_done
    settle(graph)
    assert graph.states() == {"a": "finished", "paid": "finished", "b": "available"}
    assert bench.row("SELECT outcome FROM opsjobs.signals")["outcome"] == "taken"


@pytest.mark.parametrize("time", TIMES)
def test_two_operators_give_one_signal_to_two_waits(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    """While another process advances both workflows."""
    graphs = [Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT}) for _ in range(2)]
    for graph in graphs:
        settle(graph)
    signal = send_before(bench, "early" if time % 2 else "ambiguous")
    other = make_bench().connection
    one, two, _ = race(
        *(
            lambda graph=graph: operator.run(
                "workflow.give_signal",
                [f"workflow/{graph.run}"],
                **WHY,
                params={"wait": "paid", "signal": signal},
            )
            for graph in graphs
        ),
        lambda: [advance(other, graph.run, 1_000_000) for graph in graphs],
    )
    assert sorted(codes([one, two])) == ["done", "illegal"]
    for graph, receipt in zip(graphs, (one, two), strict=True):
        settle(graph)
        assert graph.states()["paid"] == ("finished" if receipt.is_done else "deferred")
    assert len(bench.rows("SELECT 1 FROM opsjobs.outputs")) == 1


@pytest.mark.parametrize("time", TIMES)
def test_operators_in_crossed_orders_never_deadlock(
    bench: Bench, make_bench: MakeBench, operator: Operator, time: int
) -> None:
    graphs = [Graph.make(bench.connection, "a b c d", ["a b", "b c", "a d"]) for _ in range(8)]
    for graph in graphs:
        graph.end("a", "failed")
        settle(graph)
    runs = [f"workflow/{graph.run}" for graph in graphs]
    firsts = [f"job/{graph.ids['a']}" for graph in graphs]
    other = make_bench().connection

    def go_on() -> None:
        for graph in graphs[::-1] * 3:
            advance(other, graph.run, 1_000_000)

    answers = race(
        lambda: operator.run("workflow.retry", runs, **WHY),
        lambda: operator.run("job.retry", firsts[::-1], **WHY),
        lambda: operator.run("workflow.cancel", runs[::-1], **WHY),
        go_on,
    )
    *receipts, _ = answers
    assert set(codes(receipts)) <= {"done", "illegal"}
    row = bench.row("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0
    for graph in graphs:
        settle(graph)
        assert graph.states()["a"] in ("available", "canceled")


def test_a_signal_that_a_host_sends_again_is_given_after_its_commit(
    bench: Bench, make_bench: MakeBench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    settle(graph)
    sent = opsjobs.signal("payment", key="order-1", payload=1, dedupe="evt_1")
    db.session.commit()
    assert opsjobs.signal("payment", key="order-1", payload=2, dedupe="evt_1").conflict
    looking = make_bench().connection
    thread = Thread(target=operator.give_signal, args=(graph.run, "paid", sent.id), kwargs=WHY)
    thread.start()
    wait_until(lambda: _waiting(looking) == 1, what="the operator to wait for the host")
    db.session.commit()
    thread.join(10)
    assert graph.states()["paid"] == "finished"
    row = bench.row("SELECT outcome, payload, duplicates FROM opsjobs.signals")
    assert row == {"outcome": "taken", "payload": 1, "duplicates": 1}


def test_a_run_is_locked_before_its_steps(bench: Bench, make_bench: MakeBench) -> None:
    """Who waits for the run holds no lock of a job meanwhile."""
    graph = Graph.make(bench.connection, "a b", [])
    ids = list(graph.ids.values())
    operating, looking = make_bench().connection, make_bench().connection

    def lock() -> None:
        with operating.transaction():
            job_transitions.lock(operating, ids)

    with bench.connection.transaction():
        transitions.lock(bench.connection, [graph.run])
        thread = Thread(target=lock)
        thread.start()
        wait_until(lambda: _waiting(looking) == 1, what="the operator to wait for the run")
        with looking.transaction():
            looking.execute("SELECT FROM opsjobs.jobs WHERE id = ANY (%s) FOR UPDATE NOWAIT", [ids])
    thread.join(10)
    assert not thread.is_alive()


def _waiting(connection: Connection) -> int:
    """How many sessions of this database wait for a lock."""
    (number,) = (
        connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
        or ()
    )
    return int(number)


# --- a kill


KILLED = """
import os, signal
from flask_opsjobs.actions import operator
from tests.support.host import create_app

operator.run_effects = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app = create_app()
with app.app_context():
    operator.Operator(app.extensions["opsjobs"]).{call}, actor="anna", reason="because it is a test")
"""


@pytest.mark.parametrize("call", ['skip_step({run}, "a", 42', 'give_signal({run}, "a", 1'])
def test_a_process_that_is_killed_after_its_commit_is_finished_by_the_loop(
    bench: Bench, children: Children, call: str
) -> None:
    waits = {"a": PAYMENT} if "signal" in call else {}
    graph = Graph.make(bench.connection, "a b", ["a b"], waits=waits)
    if waits:
        send_before(bench)
    else:
        graph.end("a", "failed")
    settle(graph)
    script = KILLED.format(call=call.format(run=graph.run))
    killed = children.python("-c", script)
    wait_until(lambda: killed.exit_code is not None, what="the process to die")
    assert killed.exit_code == -9
    assert graph.states() == {"a": "finished", "b": "deferred"}
    assert bench.row("SELECT outcome FROM opsjobs.audit_events")["outcome"] == "done"
    children.flask("opsjobs", "run")
    wait_until(lambda: graph.states()["b"] != "deferred", what="the loop to release the step")
    assert checks(bench.connection) == []
