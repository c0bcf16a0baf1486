"""Makes cron entries, workflows, batches and callbacks that need a person, and what looks like it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.lifeline.detecting import Case, Scene

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}
CRON = {
    "task": "note",
    "expression": "0 * * * *",
    "zone": "UTC",
    "overlap": None,
    "catch_up": None,
    "args": {"text": ""},
}


def _opsjobs(scene: Scene) -> OpsJobs:
    found: OpsJobs = scene.get("opsjobs")
    scene.get("note")
    return found


def _commit(scene: Scene) -> None:
    scene.get("db").session.commit()


# --- cron_missed


def _on_cron(scene: Scene, action: str, **params: Any) -> None:
    receipt = Operator(scene.bench.host).run(
        f"cron.{action}", ["cron/nightly"], **WHY, params=params, now=scene.now
    )
    assert receipt.is_done, receipt


def _miss_slots(scene: Scene) -> None:
    """The loop `cron` sleeps for three hours; the entry does not catch up."""
    _opsjobs(scene)
    if "cron" not in scene.memory:
        _on_cron(scene, "create", **CRON)
        scene.memory["cron"] = True
    scene.run("cron")
    scene.wait(3 * 3600)
    scene.run("cron")


def _catch_up(scene: Scene) -> None:
    _on_cron(scene, "catch_up", count=1)


def _pause_cron(scene: Scene) -> None:
    _miss_slots(scene)
    _on_cron(scene, "pause")


def _be_just_in_time(scene: Scene) -> None:
    """The loop looks a minute after a slot, when it still runs it."""
    _wait_for_slot(scene)
    scene.wait(60)
    scene.run("cron")
    assert _results(scene) == ["ran"]


def _run_late(scene: Scene) -> None:
    """The entry catches up, and the loop looks so late that it has to."""
    _wait_for_slot(scene, catch_up="latest")
    scene.wait(61)
    scene.run("cron")
    assert _results(scene) == ["late"]


def _wait_for_slot(scene: Scene, **policies: Any) -> None:
    """The loop knows a new entry, whose first slot is now."""
    _opsjobs(scene)
    _on_cron(scene, "create", **CRON | policies)
    scene.run("cron")
    hour = scene.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    scene.wait((hour - scene.now).total_seconds())


def _results(scene: Scene) -> list[str]:
    return [row["result"] for row in scene.bench.rows("SELECT result FROM opsjobs.cron_slots")]


def _catch_up_at_once(scene: Scene) -> None:
    _miss_slots(scene)
    _catch_up(scene)


CRON_MISSED = Case(
    _miss_slots,
    _catch_up,
    {
        "paused": _pause_cron,
        "caught up": _catch_up_at_once,
        "just in time": _be_just_in_time,
        "late": _run_late,
    },
)


# --- workflow_stuck


def _start_waiting(scene: Scene, *, timeout: timedelta | None = None) -> int:
    """A run that waits for a signal, and then for another one."""
    if "run" not in scene.memory:
        flow = _opsjobs(scene).workflow("order")
        first = flow.wait("paid", signal="payment", key="order-42", timeout=timeout)
        flow.wait("sent", signal="parcel", key="order-42", after=first, timeout=timeout)
        run = flow.start()
        _commit(scene)
        scene.memory["run"] = run.id
    scene.run("advance")
    run_id: int = scene.memory["run"]
    return run_id


def _trouble(scene: Scene, trouble: str | None) -> None:
    scene.bench.rows("UPDATE opsjobs.workflows SET trouble = %s RETURNING id", trouble)


def _get_stuck(scene: Scene) -> None:
    _start_waiting(scene)
    _trouble(scene, "its graph lost a row")


def _get_unstuck(scene: Scene) -> None:
    _trouble(scene, None)


def _wait(scene: Scene) -> None:
    _start_waiting(scene)


def _contradict_once(scene: Scene) -> None:
    """One pass sees a run that contradicts itself; the next one does not."""
    contradict(scene, 1)
    scene.look(1)
    contradict(scene, -1)


def contradict(scene: Scene, by: int) -> int:
    """The steps of a run wait for more edges than there are; its id. No code of ours leaves that behind."""
    run = _start_waiting(scene)
    scene.bench.rows(
        """UPDATE opsjobs.steps SET pending = pending + %s
            WHERE settled IS NULL AND released_at IS NULL RETURNING job_id""",
        by,
    )
    return run


def _fail_once(scene: Scene) -> None:
    _get_stuck(scene)
    scene.look(3)
    _get_unstuck(scene)


WORKFLOW_STUCK = Case(
    _get_stuck,
    _get_unstuck,
    {
        "it waits for a signal": _wait,
        "one failed try": _fail_once,
        "one pass finds a contradiction": _contradict_once,
    },
)


# --- wait_overdue


def _wait_long(scene: Scene) -> None:
    _start_waiting(scene)
    scene.wait(25 * 3600)


def _send(scene: Scene) -> None:
    """The second wait of the run opens now."""
    _opsjobs(scene).signal("payment", key="order-42")
    _commit(scene)
    scene.run("advance")
    # It is opened by the clock of Postgres, which is a day behind the clock of the scene.
    scene.bench.rows(
        """UPDATE opsjobs.steps SET opened_at = %s
            WHERE is_wait_left AND opened_at IS NOT NULL RETURNING job_id""",
        scene.now,
    )


def _wait_with_timeout(scene: Scene) -> None:
    _start_waiting(scene, timeout=timedelta(days=3))
    scene.wait(25 * 3600)


def _wait_a_little(scene: Scene) -> None:
    _start_waiting(scene)
    scene.wait(23 * 3600)


WAIT_OVERDUE = Case(
    _wait_long,
    _send,
    {"its time-out is to come": _wait_with_timeout, "open for less": _wait_a_little},
)


# --- batch_overdue


def _stay_open(scene: Scene) -> None:
    if "batch" not in scene.memory:
        batch = _opsjobs(scene).batch("invoices").open()
        _commit(scene)
        scene.memory["batch"] = batch
    scene.wait(25 * 3600)


def _add(scene: Scene) -> None:
    scene.memory["batch"].enqueue(scene.get("note"), text="")
    _commit(scene)
    scene.bench.rows(
        """UPDATE opsjobs.jobs SET created_at = %s
            WHERE id = (SELECT max(id) FROM opsjobs.jobs) RETURNING id""",
        scene.now,
    )


def _add_a_day_ago(scene: Scene) -> None:
    _stay_open(scene)
    _add(scene)
    scene.wait(23 * 3600)


def _wait_for_a_time(scene: Scene) -> None:
    """A closed batch whose member is due in two days."""
    with _opsjobs(scene).batch("invoices") as batch:
        batch.enqueue(scene.get("note").options(delay=2 * 86_400), text="")
    _commit(scene)
    scene.wait(25 * 3600)


def _wait_for_a_paused_queue(scene: Scene) -> None:
    with _opsjobs(scene).batch("invoices") as batch:
        batch.enqueue(scene.get("note"), text="")
    _commit(scene)
    Operator(scene.bench.host).pause("default", **WHY)
    scene.wait(25 * 3600)


def close_with_members_of_two_ages(scene: Scene) -> datetime:
    """A closed batch of two members that nobody takes: since when the older one is due."""
    with _opsjobs(scene).batch("invoices") as batch:
        batch.enqueue(scene.get("note"), text="")
        batch.enqueue(scene.get("note"), text="")
    _commit(scene)
    oldest = scene.bench.row(
        """UPDATE opsjobs.jobs SET due_at = due_at - interval '3 h'
            WHERE id = (SELECT min(id) FROM opsjobs.jobs) RETURNING due_at"""
    )
    scene.wait(2 * 3600)
    due_at: datetime = oldest["due_at"]
    return due_at


BATCH_OVERDUE = Case(
    _stay_open,
    _add,
    {
        "a host still adds": _add_a_day_ago,
        "a member waits for a time": _wait_for_a_time,
        "its queue is paused": _wait_for_a_paused_queue,
    },
)


# --- callback_failed


def _fail_callback(scene: Scene, max_attempts: int = 1) -> None:
    bench = scene.bench
    if "callback" not in scene.memory:
        tell = _opsjobs(scene).task(max_attempts=max_attempts)(tell_of_end)
        with _opsjobs(scene).batch("invoices", on_end=tell) as batch:
            batch.enqueue(scene.get("note"), text="")
        _commit(scene)
        member = bench.row("SELECT id FROM opsjobs.jobs")["id"]
        bench.dispatch(prefetch=10)
        bench.claim(member)
        bench.record(member, 1, Outcome(kind="returned"))
        scene.run("fold")
        scene.memory["callback"] = bench.row("SELECT job_id FROM opsjobs.callbacks")["job_id"]
    job = scene.memory["callback"]
    bench.dispatch(prefetch=10)
    number = bench.job(job)["dispatch_no"]
    bench.claim(job, number)
    bench.record(job, number, Outcome(kind="raised", error="Boom", delay_seconds=60))


def tell_of_end(batch_id: int) -> None:
    """Tell the application of the end of a batch."""


def _retry(scene: Scene) -> None:
    Operator(scene.bench.host).retry(scene.memory["callback"], **WHY)


def _back_off(scene: Scene) -> None:
    _fail_callback(scene, max_attempts=5)


CALLBACK_FAILED = Case(_fail_callback, _retry, {"it backs off": _back_off})
