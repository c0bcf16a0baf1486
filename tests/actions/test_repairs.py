"""Repairs at once: a leaked lease is released, an orphan delivery removed, a queue compared with Redis."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.redis_facts import QueueInRedis
from flask_opsjobs.deliveries import lifecycle as deliveries
from flask_opsjobs.engine.reconcile.resync import compare_queue
from flask_opsjobs.engine.redis.broker import Broker, rq_id
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.leases import lifecycle as leases
from flask_opsjobs.lifeline.repairs import repairs_of
from flask_opsjobs.loops.detect import LOOP as DETECT
from flask_opsjobs.loops.dispatch import LOOP as DISPATCH
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.loops.recall import LOOP as RECALL
from flask_opsjobs.queues.lifecycle import STATES as QUEUE_STATES
from flask_opsjobs.workers import transitions as workers
from tests.actions.conftest import Reach
from tests.conftest import MakeBench
from tests.limits.conftest import Limited, commit, limited  # noqa: F401
from tests.support.engine import Bench, race
from tests.support.processes import Children

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
LANE = "default|api|0"
TIMES = range(4)


def later(bench: Bench, **by: float) -> datetime:
    """When a lease and a dispatch are old enough."""
    return read_clock(bench.connection) + timedelta(**by or {"minutes": 1})


def silence(host: Host) -> None:
    host.broker = Broker(RedisConnections(Flask("away"), "redis://127.0.0.1:1/0"))


def count_audited(bench: Bench, action: str, outcome: str = "done") -> int:
    found = bench.row(
        "SELECT count(*) AS n FROM opsjobs.audit_events WHERE action = %s AND outcome = %s",
        action,
        outcome,
    )
    return int(found["n"])


# --- lease.release


def attempts_with_places(bench: Bench) -> list[str]:
    rows = bench.rows("SELECT job_id || '-' || dispatch_no AS name FROM opsjobs.leases ORDER BY 1")
    return [row["name"] for row in rows]


@pytest.fixture
def lease(bench: Bench, limited: Limited, commit: Callable[..., int]) -> Callable[[str], str]:  # noqa: F811
    """Makes a lease in a state; its target. Leaked: as if the end of its attempt had forgotten it."""
    task = limited(concurrency=1)

    def make(state: str) -> str:
        job_id = commit(task)
        bench.dispatch(LANE, prefetch=10)
        bench.claim(job_id)
        if state == "leaked":
            (kept,) = bench.rows("SELECT * FROM opsjobs.leases")
            bench.record(job_id, 1, Outcome(kind="returned"))
            bench.rows(
                "INSERT INTO opsjobs.leases VALUES (%s, %s, %s, %s, %s, %s) RETURNING 1",
                *kept.values(),
            )
        return f"lease/{job_id}-1"

    return make


@pytest.mark.parametrize("state", leases.STATES)
def test_only_a_leaked_lease_is_released(
    bench: Bench, operator: Operator, lease: Callable[[str], str], state: str
) -> None:
    target = lease(state)
    receipt = operator.run("lease.release", [target], **WHY, now=later(bench))
    is_legal = state in leases.sources_of("release")
    assert [action.short_name for action in actions_of("lease", state)] == ["release"] * is_legal
    assert receipt.is_done == is_legal == (attempts_with_places(bench) == [])
    assert count_audited(bench, "lease.release") == int(is_legal)
    if not is_legal:
        assert receipt.code == "illegal"
        assert receipt.says.endswith("runs, and gives it back at its end")


def test_a_release_says_what_was_and_lets_the_next_job_start(
    bench: Bench,
    operator: Operator,
    lease: Callable[[str], str],
    commit: Callable[..., int],  # noqa: F811
) -> None:
    target = lease("leaked")
    waiting = commit(bench.host.tasks["call"])
    assert bench.dispatch(LANE, prefetch=10) == 0, "the leaked place is the only one"
    young = operator.run("lease.release", [target], **WHY)
    assert young.says.endswith("it was taken less than 30 s ago, and may be on its way back")
    plan = operator.plan("lease.release", [target], actor="anna", now=later(bench))
    (change,) = plan.items[0].changes
    assert (change.what, change.after) == ("place", "free")
    assert (change.before or "").endswith("is finished")
    assert attempts_with_places(bench) != [], "a plan writes nothing"
    assert operator.run("lease.release", [target], **WHY, now=later(bench)).is_done
    event = bench.row("SELECT * FROM opsjobs.audit_events WHERE outcome = 'done'")
    assert (event["subject"], event["permission"]) == (target, "lease.release")
    assert event["before"][target]["state"] == "leaked"
    assert event["after"] == {target: None}
    assert bench.dispatch(LANE, prefetch=10) == 1
    bench.claim(waiting)
    again = operator.run("lease.release", [target], **WHY, now=later(bench))
    assert (again.code, attempts_with_places(bench)) == ("unknown_target", [f"{waiting}-1"])


def test_what_the_detector_finds_is_what_can_be_released(
    bench: Bench, operator: Operator, lease: Callable[[str], str]
) -> None:
    target = lease("leaked")
    runner = Runner(DETECT, bench.host, "one")
    for seconds in (60, 70, 80):
        runner.run_once(bench.connection, later(bench, seconds=seconds))
    row = bench.row("SELECT * FROM opsjobs.incidents WHERE class = 'lease_leaked'")
    (repair,) = repairs_of("lease_leaked", row["facts"])
    assert (repair.action, repair.targets) == ("lease.release", (target,))
    assert operator.run(repair.action, repair.targets, **WHY, now=later(bench)).is_done


def test_a_lease_that_ends_makes_the_preview_drift(
    bench: Bench, operator: Operator, lease: Callable[[str], str]
) -> None:
    target, when = lease("leaked"), later(bench)
    preview = operator.preview("lease.release", [target], actor="anna", via="page", now=when)
    bench.rows("DELETE FROM opsjobs.leases RETURNING 1")
    receipt = operator.execute(preview.id, preview.token, **WHY, now=when)
    assert receipt.code == "drifted"
    assert receipt.drifted[-1].after == f"there is no lease {target[6:]}: its place is free"


@pytest.mark.parametrize("time", TIMES)
def test_two_release_one_lease_once(
    bench: Bench, operator: Operator, lease: Callable[[str], str], time: int
) -> None:
    target, when = lease("leaked"), later(bench)

    def release() -> Any:
        return operator.run("lease.release", [target], **WHY, now=when)

    assert sorted(receipt.is_done for receipt in race(release, release)) == [False, True]
    assert (attempts_with_places(bench), count_audited(bench, "lease.release")) == ([], 1)


# --- delivery.remove


def place(redis: Redis, of: str) -> Queue:
    return Queue(of, connection=redis)


def traces(redis: Redis, job_id: int, number: int = 1) -> bool:
    """Whether Redis has anything of the delivery."""
    name = rq_id(job_id, number)
    of = place(redis, "default")
    in_lists = {*redis.lrange(of.key, 0, -1), *redis.lrange(of.intermediate_queue_key, 0, -1)}
    return name.encode() in in_lists or bool(redis.exists(RQJob.key_for(name)))


@pytest.fixture
def delivery(bench: Bench, reach: Reach, redis_client: Redis) -> Callable[[str], str]:
    """Makes a delivery in a state; its target. An orphan: the job behind it was deleted."""

    def make(state: str) -> str:
        job_id = reach("queued")
        target = f"delivery/{rq_id(job_id, 1)}"
        if state in ("orphan", "running"):
            bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING 1", job_id)
        if state == "running":
            until = later(bench).timestamp() + 600
            registry = place(redis_client, "default").started_job_registry.key
            redis_client.zadd(registry, {f"{rq_id(job_id, 1)}:run": until})
            redis_client.lrem(place(redis_client, "default").key, 0, rq_id(job_id, 1))
        if state == "unknown":
            silence(bench.host)
        return target

    return make


WHY_NOT = {
    "needed": "is queued, and needs it",
    "running": "RQ says that a worker runs it; the worker refuses or ends it",
    "unknown": "its Redis does not answer, so nobody knows where it is",
}


@pytest.mark.parametrize("state", deliveries.STATES)
def test_only_an_orphan_delivery_is_removed(
    bench: Bench,
    operator: Operator,
    delivery: Callable[[str], str],
    redis_client: Redis,
    state: str,
) -> None:
    target = delivery(state)
    job_id = int(target.split("-")[1])
    receipt = operator.run("delivery.remove", [target], **WHY)
    is_legal = state in deliveries.sources_of("remove")
    assert [each.short_name for each in actions_of("delivery", state)] == ["remove"] * is_legal
    assert receipt.is_done == is_legal == (not traces(redis_client, job_id))
    assert count_audited(bench, "delivery.remove") == int(is_legal)
    if not is_legal:
        assert receipt.code == "illegal"
        assert receipt.says.endswith(WHY_NOT[state])


@pytest.mark.parametrize("where", ["listed", "parked", "kept", "other queue"])
def test_an_orphan_is_found_where_it_is(
    bench: Bench,
    operator: Operator,
    record_job: Callable[..., int],
    redis_client: Redis,
    where: str,
) -> None:
    name = "mail" if where == "other queue" else "default"
    job_id = record_job(queue=name)
    bench.dispatch(name)
    bench.rows("DELETE FROM opsjobs.jobs RETURNING 1")
    of = place(redis_client, name)
    if where in ("parked", "kept"):
        redis_client.lrem(of.key, 0, rq_id(job_id, 1))
    if where == "parked":
        redis_client.lpush(of.intermediate_queue_key, rq_id(job_id, 1))
    receipt = operator.remove_delivery(rq_id(job_id, 1), **WHY)
    (change,) = receipt.done[0].changes
    words = {"listed": "waits in the list", "parked": "not begun", "kept": "only its record"}
    assert words.get(where, "queue mail: waits in the list") in (change.before or "")
    assert receipt.done[0].note == f"job {job_id} is deleted, or never was committed"
    assert not [key for key in redis_client.keys("*") if b"opsjobs-" in key]
    assert redis_client.llen(of.key) == redis_client.llen(of.intermediate_queue_key) == 0
    again = operator.run("delivery.remove", [f"delivery/{rq_id(job_id, 1)}"], **WHY)
    assert again.code == "unknown_target"
    assert again.says.endswith("nothing is left to remove")


def test_a_delivery_whose_job_has_moved_on_is_an_orphan_and_a_reserved_one_is_not(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Redis
) -> None:
    job_id = reach("queued")
    bench.rows("UPDATE opsjobs.jobs SET dispatch_no = 2 RETURNING 1")
    report = workers.HeartbeatReport(1, reserved=[f"{job_id}-1"])
    workers.record_heartbeat(
        bench.connection, bench.worker_id, report, read_clock(bench.connection)
    )
    target = f"delivery/{rq_id(job_id, 1)}"
    held = operator.run("delivery.remove", [target], **WHY)
    assert held.says.endswith("a worker has it, says the heartbeat of the worker")
    report = workers.HeartbeatReport(2, reserved=[])
    workers.record_heartbeat(
        bench.connection, bench.worker_id, report, read_clock(bench.connection)
    )
    receipt = operator.run("delivery.remove", [target], **WHY)
    assert receipt.done[0].note == f"job {job_id} is queued, under the dispatch number 2"
    assert not traces(redis_client, job_id)
    assert bench.job(job_id)["state"] == "queued"


def test_a_delivery_that_is_taken_makes_the_preview_drift(
    operator: Operator, delivery: Callable[[str], str], redis_client: Redis
) -> None:
    target = delivery("orphan")
    preview = operator.preview("delivery.remove", [target], actor="anna", via="page")
    of = place(redis_client, "default")
    redis_client.lmove(of.key, of.intermediate_queue_key, "LEFT", "LEFT")
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    assert [change.what for change in receipt.drifted] == [f"{target} place"]
    assert traces(redis_client, int(target.split("-")[1]))


def test_a_redis_that_falls_silent_after_the_commit_is_said(
    bench: Bench,
    operator: Operator,
    delivery: Callable[[str], str],
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = delivery("orphan")
    broker = bench.host.broker
    look = operator._look

    def look_and_lose(*args: Any) -> Any:
        found = look(*args)
        silence(bench.host)
        return found

    monkeypatch.setattr(operator, "_look", look_and_lose)
    receipt = operator.run("delivery.remove", [target], **WHY)
    assert receipt.is_done
    assert "Redis was not told: a worker that takes such a delivery refuses it" in receipt.says
    bench.host.broker = broker
    assert traces(redis_client, int(target.split("-")[1]))
    runner = Runner(RECALL, bench.host, "one")
    for seconds in (1, 2, 3):
        runner.run_once(bench.connection, later(bench, seconds=seconds))
    assert not traces(redis_client, int(target.split("-")[1])), "the recall loop removes it"


@pytest.mark.parametrize("time", TIMES)
def test_a_removal_against_the_recall_loop_and_another_operator(
    bench: Bench,
    make_bench: MakeBench,
    operator: Operator,
    delivery: Callable[[str], str],
    redis_client: Redis,
    time: int,
) -> None:
    target, needed = delivery("orphan"), delivery("needed")
    runner, other = Runner(RECALL, bench.host, "one"), make_bench()
    runner.run_once(other.connection, later(bench, seconds=1))

    def remove() -> Any:
        return operator.run("delivery.remove", [target, needed], **WHY)

    race(remove, remove, lambda: runner.run_once(other.connection, later(bench, seconds=2)))
    assert not traces(redis_client, int(target.split("-")[1]))
    assert traces(redis_client, int(needed.split("-")[1]))
    assert bench.job(int(needed.split("-")[1]))["state"] == "queued"


# --- queue.resync


@pytest.fixture
def mess(bench: Bench, reach: Reach, redis_client: Redis) -> dict[str, int]:
    """A queue with a lost delivery, an orphan delivery, a good one, and a job that is due."""
    found = {name: reach("queued") for name in ("lost", "orphan", "good")}
    redis_client.lrem(place(redis_client, "default").key, 0, rq_id(found["lost"], 1))
    redis_client.delete(RQJob.key_for(rq_id(found["lost"], 1)))
    bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING 1", found["orphan"])
    bench.rows(
        "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '1 minute' RETURNING 1"
    )
    found["due"] = reach("available")
    return found


@pytest.mark.parametrize("state", QUEUE_STATES)
def test_a_resync_repairs_the_queue_in_each_state(
    bench: Bench, operator: Operator, mess: dict[str, int], redis_client: Redis, state: str
) -> None:
    paused = state != "open"
    bench.rows(
        "INSERT INTO opsjobs.queues (name, created_at, prefetch, is_draining, is_paused, paused_at,"
        " paused_by, paused_reason)"
        " SELECT 'default', clock_timestamp(), 10, %s, p.at IS NOT NULL, p.at, p.by, p.by"
        " FROM (SELECT CASE WHEN %s THEN clock_timestamp() END AS at, CASE WHEN %s THEN 'ben' END AS by) AS p"
        " RETURNING 1",
        state == "draining",
        paused,
        paused,
    )
    before = bench.rows("SELECT id, state, dispatch_no FROM opsjobs.jobs ORDER BY id")
    preview = operator.preview("queue.resync", ["queue/default"], actor="anna", via="page")
    changes = {
        change.what: (change.before, change.after) for change in preview.plan.items[0].changes
    }
    assert changes["lost deliveries"] == ("1 of 2 queued jobs", "recalled")
    assert changes["orphan deliveries"] == ("1", "removed")
    assert ("due jobs" in changes, "in Redis" in changes) == (state == "open", state == "paused")
    assert bench.rows("SELECT id, state, dispatch_no FROM opsjobs.jobs ORDER BY id") == before
    assert traces(redis_client, mess["orphan"]), "a preview changes nothing"

    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.is_done
    assert "removed 1 orphan delivery" in receipt.says
    assert not traces(redis_client, mess["orphan"])
    states = {name: bench.job(mess[name])["state"] for name in ("lost", "good", "due")}
    numbers = {name: bench.job(mess[name])["dispatch_no"] for name in ("lost", "good", "due")}
    if state == "open":
        assert "recalled 1 lost delivery" in receipt.says
        assert receipt.says.endswith("dispatched 2 jobs")
        assert (states, numbers["lost"]) == (dict.fromkeys(states, "queued"), 2)
        assert traces(redis_client, mess["lost"], 2)
    else:
        assert (states["lost"], states["due"]) == ("available", "available")
        assert states["good"] == ("available" if state == "paused" else "queued")
    assert traces(redis_client, mess["good"]) == (state != "paused")
    assert count_audited(bench, "queue.resync") == 1
    again = operator.resync("default", **WHY)
    assert again.says.endswith("Redis and Postgres agreed, and nothing could be dispatched")


def test_a_queue_that_agrees_says_so_before_and_after(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    reach("queued")
    plan = operator.plan("queue.resync", ["queue/default"], actor="anna", now=later(bench))
    assert plan.items[0].changes == ()
    assert plan.items[0].note == "queue and Redis agree now; what differs then is repaired"
    unknown = operator.run("queue.resync", ["queue/mial"], **WHY)
    assert unknown.code == "unknown_target"


def test_a_silent_redis_refuses_a_resync_and_one_that_falls_silent_is_said(
    bench: Bench, operator: Operator, mess: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = operator._look

    def look_and_lose(*args: Any) -> Any:
        found = look(*args)
        silence(bench.host)
        return found

    monkeypatch.setattr(operator, "_look", look_and_lose)
    receipt = operator.run("queue.resync", ["queue/default"], **WHY)
    assert receipt.is_done
    otherwise = "Redis was not told: the recall loop and the dispatch loop repair it"
    assert receipt.says.endswith(otherwise)
    assert bench.job(mess["lost"])["state"] == "queued"
    monkeypatch.undo()
    refused = operator.run("queue.resync", ["queue/default"], **WHY)
    assert (refused.code, refused.says) == (
        "illegal",
        "cannot resync queue default: its Redis does not answer",
    )


KILLED = """
import os, signal, sys
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.engine.dispatch import after_commit
from flask_opsjobs.engine.reconcile import resync
from tests.support.host import create_app
host = create_app().extensions["opsjobs"]
for module in (after_commit, resync):
    if hasattr(module, sys.argv[1]):
        setattr(module, sys.argv[1], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
Operator(host).run("queue.resync", ["queue/default"], actor="anna", reason="because it is a test")
"""


@pytest.mark.parametrize("killed_in", ["resync_queue", "Dispatcher"])
def test_what_a_killed_resync_leaves_is_repaired_by_the_loops(
    bench: Bench,
    operator: Operator,
    mess: dict[str, int],
    redis_client: Redis,
    children: Children,
    killed_in: str,
) -> None:
    """Killed right after the commit, or when it has recalled and removed, before it dispatches."""
    operator.set_prefetch("default", 10, **WHY)
    child = children.python("-c", KILLED, killed_in)
    assert child.wait(60) == -signal.SIGKILL
    assert count_audited(bench, "queue.resync") == 1
    is_begun = killed_in == "Dispatcher"
    assert bench.job(mess["lost"])["state"] == ("available" if is_begun else "queued")
    assert bench.job(mess["due"])["state"] == "available"
    assert traces(redis_client, mess["orphan"]) != is_begun

    recall, dispatch = (Runner(loop, bench.host, "one") for loop in (RECALL, DISPATCH))
    for seconds in (1, 2, 30):
        recall.run_once(bench.connection, later(bench, seconds=seconds))
    dispatch.run_once(bench.connection, later(bench, seconds=31))
    assert not traces(redis_client, mess["orphan"])
    for name, number in (("lost", 2), ("good", 1), ("due", 1)):
        job = bench.job(mess[name])
        assert (job["state"], job["dispatch_no"]) == ("queued", number), name
        assert traces(redis_client, job["id"], number), name
    compared = compare_queue(bench.host, bench.connection, "default", later(bench))
    assert compared == QueueInRedis(queued=3, lost=0, orphans=0, due=0)
    assert count_audited(bench, "queue.resync") == 1


def test_a_pause_after_the_preview_drifts(
    bench: Bench, operator: Operator, mess: dict[str, int]
) -> None:
    preview = operator.preview("queue.resync", ["queue/default"], actor="anna", via="page")
    operator.pause("default", **WHY)
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    assert bench.job(mess["due"])["state"] == "available"


@pytest.mark.parametrize("time", TIMES)
def test_resyncs_against_the_loop_and_a_claim(
    bench: Bench,
    make_bench: MakeBench,
    operator: Operator,
    mess: dict[str, int],
    redis_client: Redis,
    time: int,
) -> None:
    """Each job is in Redis once, or claimed; nothing that is needed is removed."""
    runner, loop, worker = Runner(RECALL, bench.host, "one"), make_bench(), make_bench()
    runner.run_once(loop.connection, later(bench, seconds=1))

    def resync() -> Any:
        return operator.run("queue.resync", ["queue/default"], **WHY)

    one, two, _, claimed = race(
        resync,
        resync,
        lambda: runner.run_once(loop.connection, later(bench, seconds=30)),
        lambda: worker.claim(mess["lost"]),
    )
    assert (one.is_done, two.is_done) == (True, True)
    jobs = {name: bench.job(mess[name]) for name in ("lost", "good", "due")}
    is_claimed = not hasattr(claimed, "reason")
    for name, job in jobs.items():
        if job["state"] == "started":
            assert (name, is_claimed) == ("lost", True)
        elif job["state"] == "queued":
            assert traces(redis_client, job["id"], job["dispatch_no"]), name
        else:
            assert job["state"] == "available"
    assert not traces(redis_client, mess["orphan"])
    assert not is_claimed or jobs["lost"]["dispatch_no"] == 1


# --- who may


class Denying:
    """A policy that allows all but some permissions."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied

    def current_actor(self) -> str | None:
        return "anna"

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return permission not in self.denied


@pytest.mark.parametrize("action", ["lease.release", "delivery.remove", "queue.resync"])
def test_without_the_permission_nothing_is_read_or_done(
    bench: Bench, operator: Operator, mess: dict[str, int], redis_client: Redis, action: str
) -> None:
    targets = {
        "lease.release": "lease/1-1",
        "delivery.remove": f"delivery/{rq_id(mess['orphan'], 1)}",
        "queue.resync": "queue/default",
    }
    bench.host.access = Denying(action)
    receipt = operator.run(action, [targets[action]], **WHY)
    assert (receipt.code, receipt.says.rpartition(": ")[2]) == (
        "unauthorized",
        f"it needs {action}",
    )
    assert bench.rows("SELECT * FROM opsjobs.audit_events") == []
    assert traces(redis_client, mess["orphan"])
    assert bench.job(mess["lost"])["state"] == "queued"


@pytest.mark.parametrize(
    "target",
    [
        "lease/42",
        "lease/42-",
        "lease/42-3-1",
        "lease/a-b",
        f"lease/{2**63}-1",
        "delivery/42-3",
        "delivery/opsjobs-042-3",
        f"delivery/opsjobs-1-{2**63}",
        "delivery/opsjobs-42-3\n",
    ],
)
def test_no_other_text_is_a_target(operator: Operator, target: str) -> None:
    action = "lease.release" if target.startswith("lease") else "delivery.remove"
    with pytest.raises(Exception, match=r"not a target|too large|larger"):
        operator.run(action, [target], **WHY)
