"""What operators decide about queues: each action in each state, and what lies in Redis afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.actions.effects import Forget, Recall
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS, actions_of
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile.recall import recall_paused
from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.loops.recall import LOOP
from flask_opsjobs.queues.lifecycle import ARROWS, STATES, sources_of, state_of
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
RecordJob = Callable[..., int]


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture(autouse=True)
def _known(record_job: RecordJob) -> None:
    """A job names the queue, so that it is one."""
    record_job(delay=3600)


def queue(bench: Bench, name: str = "default") -> dict[str, Any]:
    return bench.row("SELECT * FROM opsjobs.queues WHERE name = %s", name)


def state(bench: Bench) -> str:
    found = bench.rows("SELECT is_paused, is_draining FROM opsjobs.queues")
    return state_of(**found[0]) if found else "open"


def count(bench: Bench, state: str) -> int:
    found: int = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = %s", state)["n"]
    return found


def in_redis(redis_client: Any) -> int:
    return len([key for key in redis_client.keys("*") if b"opsjobs-" in key])


@pytest.mark.parametrize("was", STATES)
@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: arrow.name)
def test_each_action_in_each_state(bench: Bench, operator: Operator, arrow: Any, was: str) -> None:
    if was != "open":
        getattr(operator, {"paused": "pause", "draining": "drain"}[was])("default", **WHY)
    before = bench.rows("SELECT * FROM opsjobs.queues")
    params = {"prefetch": 7} if arrow.name == "set_prefetch" else None
    receipt = operator.run(f"queue.{arrow.name}", ["queue/default"], **WHY, params=params)
    if was in arrow.sources:
        assert receipt.is_done
        assert state(bench) == (*arrow.targets, was)[0]
    else:
        assert receipt.code == "illegal"
        assert bench.rows("SELECT * FROM opsjobs.queues") == before
    legal = actions_of("queue", was)
    assert (ACTIONS[f"queue.{arrow.name}"] in legal) == (was in sources_of(arrow.name))


def test_who_paused_it_and_why_stands_in_its_row(bench: Bench, operator: Operator) -> None:
    operator.pause("default", **WHY)
    row = queue(bench)
    assert (row["paused_by"], row["paused_reason"]) == ("anna", "because it is a test")
    assert row["paused_at"] is not None
    again = operator.run("queue.pause", ["queue/default"], actor="ben", reason=WHY["reason"])
    assert again.says == "queue default is paused already, by anna"
    assert again.skipped[0].code == "already"
    operator.resume("default", **WHY)
    row = queue(bench)
    assert (row["paused_by"], row["paused_reason"], row["paused_at"]) == (None, None, None)


@pytest.mark.parametrize("value", [50, "50", " 50"])
def test_a_prefetch_is_set_and_made_automatic_again(
    bench: Bench, operator: Operator, value: Any
) -> None:
    params = {"prefetch": value}
    receipt = operator.run("queue.set_prefetch", ["queue/default"], **WHY, params=params)
    assert queue(bench)["prefetch"] == 50
    (change,) = receipt.done[0].changes
    assert (change.before, change.after) == ("automatic", "50")
    again = operator.run("queue.set_prefetch", ["queue/default"], **WHY, params={"prefetch": 50})
    assert again.skipped[0].code == "already"
    operator.set_prefetch("default", None, **WHY)
    assert queue(bench)["prefetch"] is None


def test_a_set_prefetch_is_what_dispatch_allows(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    for _ in range(5):
        record_job()
    operator.set_prefetch("default", 3, **WHY)
    assert bench.dispatch(prefetch=100) == 3


def test_a_queue_that_nothing_names_is_not_found_and_gets_no_row(
    bench: Bench, operator: Operator
) -> None:
    receipt = operator.run("queue.pause", ["queue/mial", "queue/default"], **WHY)
    assert [(skip.target, skip.code) for skip in receipt.skipped] == [("queue/mial", "not_found")]
    assert [row["name"] for row in bench.rows("SELECT name FROM opsjobs.queues")] == ["default"]
    alone = operator.run("queue.pause", ["queue/mial"], **WHY)
    assert alone.code == "unknown_target"


def test_a_queue_is_known_by_a_listener_or_a_declared_worker(
    operator: Operator, make_bench: MakeBench, opsjobs: Any
) -> None:
    make_bench(queues=("listened/to",))

    def declared() -> None:
        """Nothing was ever enqueued for it."""

    opsjobs.task(queue="declared")(declared)
    receipt = operator.run("queue.pause", ["queue/listened/to", "queue/declared"], **WHY)
    assert [item.name for item in receipt.done] == ["listened/to", "declared"]


def test_a_refused_action_creates_no_row(bench: Bench, operator: Operator) -> None:
    assert not operator.run("queue.resume", ["queue/default"], **WHY).is_done
    assert bench.rows("SELECT * FROM opsjobs.queues") == []


def test_pause_recalls_what_is_in_redis_and_leaves_what_runs(
    bench: Bench, operator: Operator, record_job: RecordJob, redis_client: Any
) -> None:
    running = record_job()
    bench.dispatch(prefetch=1)
    bench.claim(running)
    for _ in range(5):
        record_job()
    bench.dispatch(prefetch=3)
    assert (count(bench, "queued"), count(bench, "available")) == (3, 2)
    operator.pause("default", **WHY)
    assert (count(bench, "queued"), count(bench, "available")) == (0, 5)
    assert bench.job(running)["state"] == "started"
    # What the running one left in Redis is its worker's to remove.
    assert in_redis(redis_client) == 1
    assert bench.dispatch(prefetch=3) == 0
    operator.resume("default", **WHY)
    assert bench.dispatch(prefetch=3) == 3


@pytest.mark.parametrize("action", ["queue.pause", "job.cancel"])
def test_with_a_frozen_redis_a_decision_is_quick_and_its_receipt_says_so(
    action: str,
    app: Flask,
    host: Host,
    bench: Bench,
    record_job: RecordJob,
    own_valkey: Any,
    redis_waits: list[float],
) -> None:
    job_id, other = record_job(), record_job(queue="mail")
    host.broker = Broker(RedisConnections(app, own_valkey.url))
    bench.dispatch(prefetch=3)
    bench.dispatch("mail", prefetch=3)
    own_valkey.freeze()
    targets, otherwise = {
        "queue.pause": (["queue/default", "queue/mail"], Recall.otherwise),
        "job.cancel": ([f"job/{job_id}", f"job/{other}"], Forget.otherwise),
    }[action]
    receipt = Operator(host).run(action, targets, **WHY)
    # 5 s is what a loop gives a call; an operator waits for one short call, not for one a queue.
    assert redis_waits == [0.2]
    assert receipt.is_done
    assert receipt.says.endswith(f"; Redis was not told: {otherwise}")
    # In Postgres it has happened: whoever meets the delivery is refused.
    assert bench.job(job_id)["state"] in ("available", "canceled")
    own_valkey.thaw()
    assert not isinstance(bench.claim(job_id), Claimed)


def test_a_pause_with_nothing_in_redis_does_not_ask_it(
    app: Flask, host: Host, own_valkey: Any
) -> None:
    own_valkey.kill()
    host.broker = Broker(RedisConnections(app, own_valkey.url))
    assert Operator(host).pause("default", **WHY).says == "Pause queue default: done"


def test_drain_leaves_it_there_and_a_pause_then_takes_it(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    for _ in range(5):
        record_job()
    bench.dispatch(prefetch=3)
    operator.drain("default", **WHY)
    assert (count(bench, "queued"), bench.dispatch(prefetch=5)) == (3, 0)
    assert recall_paused(bench.connection) == []
    operator.pause("default", **WHY)
    assert count(bench, "queued") == 0


def test_other_queues_are_left_alone(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    other = record_job(queue="mail")
    bench.dispatch("mail", prefetch=3)
    operator.pause("default", **WHY)
    assert bench.job(other)["state"] == "queued"


def test_what_a_dispatcher_pushed_after_the_pause_the_loop_recalls(
    host: Host, bench: Bench, operator: Operator, record_job: RecordJob, redis_client: Any
) -> None:
    job_id = record_job()
    operator.pause("default", **WHY)
    row = "UPDATE opsjobs.queues SET (is_paused, paused_at, paused_by, paused_reason) ="
    # As a dispatcher that read the queue before the pause: the real one, while the row says otherwise.
    bench.rows(f"{row} (false, NULL, NULL, NULL) RETURNING 1")
    bench.dispatch(prefetch=3)
    bench.rows(f"{row} (true, now(), 'anna', 'kept short') RETURNING 1")
    assert bench.job(job_id)["state"] == "queued"
    runner = Runner(LOOP, host)
    runner.run_once(bench.connection)
    assert bench.job(job_id)["state"] == "available"
    assert in_redis(redis_client) == 0
    run = bench.row("SELECT report FROM opsjobs.loop_runs WHERE loop = 'recall'")
    assert run["report"] == "recalled 1 job of paused queues"


@pytest.mark.parametrize("turn", range(8))
def test_a_pause_against_a_dispatcher_and_a_worker(
    host: Host,
    make_bench: MakeBench,
    operator: Operator,
    record_job: RecordJob,
    redis_client: Any,
    turn: int,
) -> None:
    """After the next pass of the loop nothing is queued, and what was claimed in time runs once."""
    one, two = make_bench(), make_bench()
    ids = [record_job() for _ in range(6)]
    one.dispatch(prefetch=3)
    receipt, _, claimed = race(
        lambda: operator.run("queue.pause", ["queue/default"], **WHY),
        lambda: one.dispatch(prefetch=6),
        lambda: two.claim(ids[0]),
    )
    assert receipt.is_done
    Runner(LOOP, host).run_once(one.connection)
    assert count(one, "queued") == 0
    is_claimed = not hasattr(claimed, "reason")
    assert count(one, "started") == is_claimed
    assert count(one, "available") == 6 - is_claimed
    assert in_redis(redis_client) == is_claimed


def test_two_pauses_of_a_queue_without_a_row(bench: Bench, operator: Operator) -> None:
    receipts = race(*[lambda: operator.run("queue.pause", ["queue/default"], **WHY)] * 3)
    assert sorted(receipt.outcome for receipt in receipts) == ["done", "refused", "refused"]
    assert queue(bench)["is_paused"]


def test_a_pause_is_audited_with_before_and_after(bench: Bench, operator: Operator) -> None:
    operator.pause("default", **WHY)
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["subject"], event["reason"]) == ("queue/default", "because it is a test")
    assert event["before"]["queue/default"]["state"] == "open"
    assert event["after"]["queue/default"]["state"] == "paused"


def test_what_a_living_worker_holds_is_not_taken_from_it(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    """A claim that a crash of Postgres forgot: the row says queued while the function runs."""
    held, other = record_job(), record_job()
    bench.dispatch(prefetch=9)
    workers.record_heartbeat(
        bench.connection,
        bench.worker_id,
        workers.HeartbeatReport(2, reserved=[f"{held}-1"]),
        read_clock(bench.connection),
    )
    operator.pause("default", **WHY)
    assert [bench.job(id)["state"] for id in (held, other)] == ["queued", "available"]
    assert [job.state for job in bench.record(held, 1, Outcome(kind="returned"))] == ["finished"]
