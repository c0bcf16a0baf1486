"""A job held by each reason, made by what really makes it:
its code comes first, and a job about to run has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq.suspension import resume, suspend
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from flask_opsjobs import Limit, OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.redis_facts import RedisFacts
from flask_opsjobs.cron.declaration import make_entry
from flask_opsjobs.engine.explain_with_redis import explain
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.worker.claim import claim
from flask_opsjobs.engine.worker.left_children import LeaveReason, LeftChildren
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.errors import UnknownJob
from flask_opsjobs.explain.explain import FINDERS, explain_evidence, explain_schema
from flask_opsjobs.explain.queries import find_evidence_of, find_job_evidence
from flask_opsjobs.explain.reason_kinds import CODES, REASON_KINDS, Explanation
from flask_opsjobs.explain.waiting import WaitingExplanation, WaitingGroup
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeApp, MakeBench
from tests.explain.conftest import Look, codes, wake_loops
from tests.support import host as host_module
from tests.support import sources
from tests.support.engine import Bench, forget_tasks, take, tasks_of
from tests.support.processes import Children
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]
WHY: dict[str, Any] = {"actor": "ops-demo", "reason": "the vendor asked us to <b>hold</b>"}


@dataclass
class Scene:
    """What a reason is made with."""

    bench: Bench
    record: RecordJob
    redis: Redis
    look: Look
    make_bench: MakeBench

    def record_limited(self, *, is_declared: bool = True, delay: float = 0, **limit: Any) -> int:
        """A job of a task with this limit, which a starting process has declared."""
        opsjobs = OpsJobs()
        opsjobs.tasks = tasks_of(self.bench.host)

        def call() -> None:
            """Takes nothing."""

        task = opsjobs.task(limit=Limit(limit.pop("limiter", "api"), **limit))(call)
        task.host = lambda: self.bench.host
        if is_declared:
            declare_limiters(self.bench.host, "test")
        session = self.bench.host.session()
        enqueued = task.options(delay=delay).enqueue()
        session.commit()
        return enqueued.id

    @property
    def operator(self) -> Operator:
        return Operator(self.bench.host)


@pytest.fixture
def scene(
    bench: Bench, record_job: RecordJob, redis_client: Redis, look: Look, make_bench: MakeBench
) -> Scene:
    return Scene(bench, record_job, redis_client, look, make_bench)


def deadline_passed(scene: Scene) -> Explanation:
    return scene.look(scene.record(deadline=timedelta(seconds=30)), seconds=31)


def cancel_requested(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.bench.dispatch()
    scene.bench.claim(job_id)
    scene.operator.cancel(job_id, **WHY)
    return scene.look(job_id)


def worker_silent(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.bench.dispatch()
    scene.bench.claim(job_id)
    return scene.look(job_id, minutes=3, heartbeats=False)


def reserved(scene: Scene) -> Explanation:
    job_id = scene.record()
    assert take(scene.bench) == [(job_id, 1)]
    found = scene.look(job_id)
    (reason,) = found.reasons
    assert reason.says == "Worker worker-1 has taken it, and has not begun it yet."
    assert (reason.read["worker"], reason.since) == (
        "worker-1",
        scene.bench.job(job_id)["dispatched_at"],
    )
    return found


def deferred(scene: Scene) -> Explanation:
    scene.bench.host.cron_entries["note"] = make_entry(
        scene.bench.host.tasks["note"], "* * * * *", overlap="queue_one"
    )
    scheduler, start = Runner(cron.LOOP, scene.bench.host), read_clock(scene.bench.connection)
    for minutes in range(3):
        scheduler.run_once(scene.bench.connection, start + timedelta(minutes=minutes))
    (behind,) = scene.bench.rows("SELECT id FROM opsjobs.jobs WHERE state = 'deferred'")
    found = scene.look(behind["id"])
    (first,) = scene.bench.rows("SELECT id FROM opsjobs.jobs WHERE state <> 'deferred'")
    (reason, *_) = found.reasons
    assert reason.says == f"It waits until job {first['id']} of cron entry note has ended."
    assert reason.read["waits_for"] == f"job/{first['id']}"
    return found


def handed_back(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.bench.dispatch()
    scene.bench.claim(job_id)
    error = "no task 'note' is declared here"
    scene.bench.record(job_id, 1, Outcome("not_run", error, ended_by="unknown_task"))
    first = scene.bench.job(job_id)["first_handed_back_at"]
    found = scene.look(job_id)
    (reason,) = found.reasons
    assert reason.says == "Worker worker-1 handed it back without running it; it is tried again."
    assert (reason.quote, reason.since) == (error, first)
    assert reason.until == first + timedelta(minutes=10)
    return found


def scheduled(scene: Scene) -> Explanation:
    return scene.look(scene.record(delay=60))


def backing_off(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.bench.dispatch()
    scene.bench.claim(job_id)
    scene.bench.record(job_id, 1, Outcome(kind="raised", error="Boom", delay_seconds=60))
    return scene.look(job_id)


def queue_paused(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.operator.pause("default", **WHY)
    return scene.look(job_id)


def task_paused(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.operator.pause_task("note", **WHY)
    found = scene.look(job_id)
    (reason,) = found.reasons
    assert (reason.by, reason.quote) == (WHY["actor"], WHY["reason"])
    assert (reason.action, reason.target) == ("task.resume", "task/note")
    return found


def queue_draining(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.operator.drain("default", **WHY)
    return scene.look(job_id)


def workers_suspended(scene: Scene) -> Explanation:
    job_id = scene.record()
    suspend(scene.redis)
    return scene.look(job_id)


def no_live_worker(scene: Scene) -> Explanation:
    return scene.look(scene.record(queue="mail"))


def no_child(scene: Scene) -> Explanation:
    job_id, left = scene.record(), LeftChildren()
    left.note([LeaveReason("died", "exited with 9")])
    report = workers.HeartbeatReport(1, left_children=left.report())
    now = read_clock(scene.bench.connection)
    workers.record_heartbeat(scene.bench.connection, scene.bench.worker_id, report, now)
    return scene.look(job_id, heartbeats=False)


def delivery_lost(scene: Scene) -> Explanation:
    job_id = scene.record()
    scene.bench.dispatch()
    scene.redis.flushdb()
    scene.bench.connection.execute(
        "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '6 s'"
    )
    return scene.look(job_id)


def loop_silent(scene: Scene) -> Explanation:
    return scene.look(scene.record(), "dispatch")


def loop_failing(scene: Scene) -> Explanation:
    return scene.look(scene.record(), error="UndefinedColumn: column j.x does not exist")


def workers_busy(scene: Scene) -> Explanation:
    running, waiting = scene.record(), scene.record()
    scene.bench.dispatch()
    scene.bench.claim(running)
    return scene.look(waiting)


def prefetch_full(scene: Scene) -> Explanation:
    _, waiting = scene.record(), scene.record()
    scene.operator.set_prefetch("default", 1, **WHY)
    assert scene.bench.dispatch() == 1
    return scene.look(waiting)


def limit_unknown(scene: Scene) -> Explanation:
    return scene.look(scene.record_limited(is_declared=False, concurrency=1))


def limit_weight(scene: Scene) -> Explanation:
    job_id = scene.record_limited(concurrency=3, weight=3)
    forget_tasks(scene.bench.host)
    # The next deploy allows less.
    scene.record_limited(concurrency=2, limiter="api")
    return scene.look(job_id)


def limit_cooldown(scene: Scene) -> Explanation:
    job_id = scene.record_limited(concurrency=1)
    (limited,) = scene.bench.rows("SELECT limiter FROM opsjobs.jobs WHERE id = %s", job_id)
    scene.operator.cooldown(limited["limiter"], 60, **WHY)
    return scene.look(job_id)


def test_a_partition_that_cools_down_is_cleared_by_its_own_target(scene: Scene) -> None:
    job_id = scene.record_limited(concurrency=1)
    (job,) = scene.bench.rows("SELECT limiter, partition FROM opsjobs.jobs WHERE id = %s", job_id)
    target = f"limiter/{job['limiter']}/{job['partition']}"
    scene.operator.cooldown(target.removeprefix("limiter/"), 60, **WHY)
    (reason,) = scene.look(job_id).reasons
    assert (reason.code, reason.target) == ("limit_cooldown", target)
    assert scene.operator.run("limiter.clear", [target], **WHY).is_done
    assert codes(scene.look(job_id)) == []


def test_a_cooldown_holds_also_what_lies_in_redis(scene: Scene) -> None:
    job_id = scene.record_limited(concurrency=1)
    assert scene.bench.dispatch_all() == 1
    scene.operator.cooldown("api", 60, **WHY)
    assert codes(scene.look(job_id)) == ["limit_cooldown"]


@pytest.mark.parametrize(("delay", "is_said"), [(59 * 60, True), (61 * 60, False)])
def test_a_cooldown_that_outlasts_its_time_is_told_before_that_comes(
    scene: Scene, delay: float, is_said: bool
) -> None:
    job_id = scene.record_limited(concurrency=1, delay=delay)
    scene.operator.cooldown("api", 60, **WHY)
    assert codes(scene.look(job_id)) == ["scheduled"] + ["limit_cooldown"] * is_said


def test_a_retry_does_not_help_against_a_cooldown(scene: Scene) -> None:
    job_id = scene.record_limited(concurrency=1)
    scene.bench.dispatch_all()
    scene.bench.claim(job_id)
    scene.bench.record(job_id, 1, Outcome(kind="raised", error="Boom", delay_seconds=60))
    scene.operator.cooldown("api", 60, **WHY)
    assert codes(scene.look(job_id)) == ["backing_off", "limit_cooldown"]


def test_what_became_too_heavy_is_told_before_its_time_comes(scene: Scene) -> None:
    job_id = scene.record_limited(concurrency=2, weight=2, delay=3600)
    forget_tasks(scene.bench.host)
    scene.record_limited(concurrency=1)
    assert codes(scene.look(job_id)) == ["scheduled", "limit_weight"]


def limit_concurrency(scene: Scene) -> Explanation:
    scene.make_bench("idle")
    running, waiting = (scene.record_limited(concurrency=1) for _ in range(2))
    assert scene.bench.dispatch_all() == 1
    scene.bench.claim(running)
    return scene.look(waiting)


def limit_tokens(scene: Scene) -> Explanation:
    first, waiting = (scene.record_limited(rate=1, per=60) for _ in range(2))
    assert scene.bench.dispatch_all() == 1
    scene.bench.claim(first)
    scene.bench.record(first, 1, Outcome(kind="returned"))
    return scene.look(waiting)


def limit_behind(scene: Scene) -> Explanation:
    _, waiting = (scene.record_limited(rate=1, per=60) for _ in range(2))
    return scene.look(waiting)


MAKERS = (
    limit_unknown,
    limit_weight,
    limit_cooldown,
    limit_concurrency,
    limit_tokens,
    limit_behind,
    deadline_passed,
    cancel_requested,
    worker_silent,
    reserved,
    deferred,
    handed_back,
    scheduled,
    backing_off,
    queue_paused,
    queue_draining,
    task_paused,
    workers_suspended,
    no_live_worker,
    no_child,
    delivery_lost,
    loop_silent,
    loop_failing,
    workers_busy,
    prefetch_full,
)
# Tested below, because they need a server of their own and an old schema, and in test_steps.py.
ELSEWHERE = {"redis_away", "schema_behind"} | {
    "run_canceling",
    "step_removed",
    "step_behind",
    "step_not_advanced",
    "wait_open",
    "map_expanding",
    # tests/explain/test_batches.py
    "batch_open",
    # tests/explain/test_adopted.py
    "parent_failed",
    "parent_open",
}


def test_every_reason_has_a_finder_and_a_test() -> None:
    # No job has these: one is of a schema that cannot be read, one of a batch.
    assert {*FINDERS, "schema_behind", "batch_open"} == set(CODES)
    assert {make.__name__ for make in MAKERS} | ELSEWHERE == set(CODES)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_each_reason_comes_first_and_alone(
    make: Callable[[Scene], Explanation], scene: Scene
) -> None:
    found = make(scene)
    assert codes(found) == [make.__name__]
    assert found.completeness == "complete", found.lacking
    (reason,) = found.reasons
    assert reason.says.endswith(".")
    assert reason.todo.endswith(".")
    assert reason.read
    assert reason.read_at == found.read_at


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_action_that_helps_is_legal_now_and_helps(
    make: Callable[[Scene], Explanation], scene: Scene
) -> None:
    found = make(scene)
    (reason,) = found.reasons
    assert reason.action == next(kind.action for kind in REASON_KINDS if kind.code == reason.code)
    if reason.action is None:
        return
    assert reason.action in ACTIONS
    assert reason.target is not None
    params = {"prefetch": 50} if reason.action == "queue.set_prefetch" else None
    receipt = scene.operator.run(reason.action, [reason.target], params=params, **WHY)
    assert receipt.is_done, receipt
    assert reason.code not in codes(scene.look(found.job_id))


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_redis_away_is_said_and_costs_little(
    make_app: MakeApp, opsjobs: OpsJobs, own_valkey: Valkey, redis_waits: list[float], how: str
) -> None:
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
    note = opsjobs.task(_note)
    with app.app_context():
        bench = Bench(app.extensions["opsjobs"])
        ids = [note.enqueue().id, note.enqueue().id]
        app.extensions["sqlalchemy"].session.commit()
        assert bench.dispatch(prefetch=1) == 1
        getattr(own_valkey, how)()

        def look(job_id: int) -> Explanation:
            redis_waits.clear()
            found = opsjobs.explain(job_id)
            # Not at all within two seconds after the last time.
            assert redis_waits in ([], [0.2])
            assert found.completeness == "partial evidence"
            assert found.lacking[0] == "Redis could not be read"
            return found

        in_redis, due = map(look, ids)
        assert codes(in_redis)[0] == "redis_away"
        todo = in_redis.reasons[0].todo  # nobody has started them
        assert todo.startswith("Start the loops: `flask opsjobs run`. The recall loop recalls it")
        assert "when Redis has been silent" in todo
        assert codes(due) == []  # its worker takes it from Postgres
        assert "Redis does not answer, but its workers take jobs from Postgres" in due.ruled_out, (
            due.ruled_out
        )
        # A plain RQ worker hears of jobs by Redis alone.
        bench.connection.execute("UPDATE opsjobs.workers SET kind = 'plain'")
        for job_id in ids:
            found = look(job_id)
            assert codes(found)[0] == "redis_away"
            assert "flask opsjobs worker default" in found.reasons[0].todo
        bench.close()


def _note() -> None: ...


@pytest.mark.parametrize("version", [0, 1])
def test_an_old_schema_is_the_only_reason(bench: Bench, version: int) -> None:
    found = explain_schema(42, version, read_clock(bench.connection))
    assert codes(found) == ["schema_behind"]
    assert (found.state, found.completeness) == ("unknown", "unknown")


class TestNoReasons:
    @pytest.mark.parametrize("is_queued", [False, True])
    def test_a_job_that_is_about_to_run(self, scene: Scene, is_queued: bool) -> None:
        job_id = scene.record(deadline=timedelta(hours=1))
        if is_queued:
            scene.bench.dispatch()
        found = scene.look(job_id)
        assert (codes(found), found.completeness) == ([], "complete")
        assert {"due", "before its deadline", "1 worker live, 1 idle", "Redis answers"} <= set(
            found.ruled_out
        )

    def test_a_limited_one_whose_bucket_has_room(self, scene: Scene) -> None:
        job_id = scene.record_limited(rate=1, per=60, concurrency=1)
        assert codes(scene.look(job_id)) == []
        assert scene.bench.dispatch_all() == 1
        assert codes(scene.look(job_id)) == [], "nor when it holds the token that it waits for"

    def test_one_that_is_due_and_not_yet_staged(self, scene: Scene) -> None:
        assert codes(scene.look(scene.record(delay=60), seconds=61)) == []

    def test_one_that_was_dispatched_just_now_is_not_called_lost(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        scene.redis.flushdb()
        assert codes(scene.look(job_id, seconds=1)) == []

    def test_a_delivery_that_a_worker_is_taking_is_not_lost(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        queue = broker_of(scene.bench.host).queue("default")
        scene.redis.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
        assert codes(scene.look(job_id, "recall", seconds=6)) == []
        silent = scene.look(job_id, "recall", seconds=31)
        assert codes(silent) == ["delivery_lost", "loop_silent"]
        assert silent.reasons[0].todo.startswith("Start the loops: `flask opsjobs run`. The recall")
        found = scene.look(job_id, seconds=31)
        assert codes(found) == ["delivery_lost"], "nobody takes half a minute for that"
        assert "the worker that took its delivery vanished" in found.reasons[0].says
        assert found.reasons[0].todo.startswith("The recall loop recalls it")
        assert found.reasons[0].todo.endswith("has been missing for 30 s.")
        assert "delivery seen" not in found.ruled_out

    def test_one_that_a_worker_took_between_the_two_looks(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        wake_loops(scene.bench, read_clock(scene.bench.connection))
        snapshot = scene.bench.host.engine.connect().execution_options(
            isolation_level="REPEATABLE READ"
        )
        with snapshot, Session(snapshot) as session:
            now = session.scalars(select(func.clock_timestamp())).one() + timedelta(seconds=6)
            scene.bench.claim(job_id)
            scene.bench.record(job_id, 1, Outcome(kind="returned"))
            scene.redis.flushdb()
            found = explain(scene.bench.host, session, job_id, now)
        assert found is not None
        assert (found.state, codes(found)) == ("queued", [])

    @pytest.mark.parametrize("kind", ["returned", "discarded"])
    def test_one_that_has_ended(self, scene: Scene, kind: str) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(job_id)
        assert codes(scene.look(job_id)) == []
        assert scene.look(job_id).says.startswith("It has been running on worker-1 since")
        scene.bench.record(job_id, 1, Outcome(kind=kind, reason="x"))
        found = scene.look(job_id)
        assert (codes(found), found.says) == ([], "It has ended.")


class TestSeveral:
    def test_a_wait_and_a_pause_and_a_silent_loop(self, scene: Scene) -> None:
        job_id = scene.record(delay=60)
        scene.operator.pause("default", **WHY)
        found = scene.look(job_id, "stage")
        assert codes(found) == ["scheduled", "queue_paused", "loop_silent"]
        assert found.says == "3 reasons, the first one decides."

    def test_nobody_listens_and_the_prefetch_is_full(self, scene: Scene) -> None:
        scene.record(queue="mail")
        waiting = scene.record(queue="mail")
        scene.bench.dispatch("mail", prefetch=1)
        scene.operator.set_prefetch("mail", 1, **WHY)
        found = scene.look(waiting, "observe")
        assert codes(found) == ["no_live_worker", "prefetch_full"]
        assert found.lacking == ("plain RQ workers are not seen while the observe loop is silent",)

    def test_a_busy_worker_dispatches_when_its_job_ends_whatever_the_loop_does(
        self, scene: Scene
    ) -> None:
        running, *_ = scene.record(), scene.record()
        scene.bench.dispatch()
        scene.bench.claim(running)
        assert codes(scene.look(scene.record(), "dispatch")) == ["workers_busy"]

    def test_an_idle_worker_does_not_wait_for_the_end_of_another_ones_job(
        self, scene: Scene
    ) -> None:
        scene.make_bench("idle")
        running = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(running)
        waiting = scene.record()
        assert codes(scene.look(waiting, "dispatch")) == ["loop_silent"]
        assert codes(scene.look(waiting)) == []

    def test_a_silent_worker_and_nobody_to_put_its_job_back(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(job_id)
        found = scene.look(job_id, "watch", minutes=3, heartbeats=False)
        assert codes(found) == ["worker_silent", "loop_silent"]
        assert found.reasons[0].todo.startswith("Start the loops: `flask opsjobs run`. The watch")
        assert found.reasons[1].read["loop"] == "watch"
        assert "but worker-1 sends no heartbeat" in found.says
        scene.operator.cancel(job_id, **WHY)
        found = scene.look(job_id, minutes=3, heartbeats=False)
        assert codes(found) == ["cancel_requested", "worker_silent"]

    def test_when_rescue_is_manual_the_reason_offers_it(self, scene: Scene) -> None:
        host = scene.bench.host
        host.settings = replace(host.settings, rescue="manual")
        job_id = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(job_id)
        (silent,) = scene.look(job_id, minutes=3, heartbeats=False).reasons
        assert (silent.code, silent.action, silent.passes) == ("worker_silent", None, True)
        assert silent.todo.startswith("The watch loop will mark that worker as missing.")
        scene.bench.rows(
            "UPDATE opsjobs.workers SET state = 'missing', ended_at = now() RETURNING 1"
        )
        found = scene.look(job_id, "watch", minutes=3, heartbeats=False)
        assert codes(found) == ["worker_silent"], "no loop rescues it"
        (gone,) = found.reasons
        assert (gone.action, gone.target) == ("job.rescue", f"job/{job_id}")
        assert not gone.passes
        assert "Rescue is manual here (OPSJOBS_RESCUE)" in gone.todo
        scene.operator.run("job.rescue", [f"job/{job_id}"], **WHY, now=found.read_at)
        assert scene.bench.job(job_id)["state"] == "available"

    def test_of_a_plain_worker_only_observe_sees_signs_of_life(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        connection = scene.bench.connection
        plain = workers.find_or_register_plain(
            connection, "plain", "here", 1, read_clock(connection)
        )
        assert isinstance(claim(connection, (job_id, 1), plain, "plain"), Claimed)
        found = scene.look(job_id, "observe", minutes=30)
        assert codes(found) == ["worker_silent"]
        assert found.lacking == ("plain RQ workers are not seen while the observe loop is silent",)
        assert scene.look(job_id, minutes=30).completeness == "complete"

    def test_what_rq_suspended_goes_on_when_rq_resumes_it(self, scene: Scene) -> None:
        job_id = scene.record(queue="mail")
        suspend(scene.redis)
        assert codes(scene.look(job_id)) == ["workers_suspended", "no_live_worker"]
        scene.bench.dispatch("mail")
        assert codes(scene.look(job_id)) == ["workers_suspended", "no_live_worker"]
        resume(scene.redis)
        assert codes(scene.look(job_id)) == ["no_live_worker"]

    def test_a_full_prefetch_of_which_redis_has_lost_a_part(self, scene: Scene) -> None:
        *_, waiting = (scene.record() for _ in range(3))
        assert scene.bench.dispatch(prefetch=2) == 2
        assert codes(scene.look(waiting, "recall")) == ["prefetch_full"]
        scene.redis.lpop(broker_of(scene.bench.host).queue("default").key)
        found = scene.look(waiting, "recall")
        assert codes(found) == ["loop_silent", "prefetch_full"]
        assert found.reasons[0].read["loop"] == "recall"
        assert codes(scene.look(waiting)) == ["prefetch_full"]

    def test_a_limiter_that_keeps_its_room_for_a_lost_delivery(self, scene: Scene) -> None:
        _, waiting = (scene.record_limited(concurrency=1) for _ in range(2))
        assert scene.bench.dispatch_all() == 1
        assert codes(scene.look(waiting, "recall")) == ["limit_concurrency"]
        scene.redis.flushdb()
        found = scene.look(waiting, "recall")
        assert codes(found) == ["loop_silent", "limit_concurrency"]
        assert found.reasons[0].read["loop"] == "recall"

    def test_who_waits_behind_nobody_needs_the_cron_loop(self, scene: Scene) -> None:
        found = deferred(scene)
        behind, first = found.job_id, int(found.reasons[0].read["waits_for"].removeprefix("job/"))
        assert codes(scene.look(behind, "cron", minutes=60)) == ["deferred"]
        scene.bench.dispatch()
        scene.bench.claim(first)
        other = scene.make_bench("other").connection
        with other.transaction():
            other.execute("SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE", [behind])
            # Whom somebody holds at that moment the end does not release: the sweep does.
            scene.bench.record(first, 1, Outcome(kind="returned"))
        found = scene.look(behind, "cron", minutes=60)
        assert codes(found) == ["deferred", "loop_silent"]
        assert found.reasons[0].says == (
            "The earlier jobs of cron entry note have ended, but did not release it."
        )
        assert codes(scene.look(behind, minutes=60)) == ["deferred"]

    def test_a_loop_that_fails_because_redis_is_away_is_not_said_twice(self, scene: Scene) -> None:
        job_id = scene.record()
        wake_loops(scene.bench, read_clock(scene.bench.connection), error="EngineUnavailable: x")
        with Session(scene.bench.host.engine) as session:
            now = read_clock(scene.bench.connection)
            away = RedisFacts(now, problem="no answer (TimeoutError)")
            job = find_job_evidence(session, job_id)
            assert job is not None
            evidence = find_evidence_of(session, job, now, scene.bench.host.settings)
        plain = [replace(worker, kind="plain") for worker in evidence.listeners]
        found = explain_evidence(replace(evidence, redis=away, listeners=plain))
        unasked = explain_evidence(evidence)
        assert codes(found) == ["redis_away"]
        assert codes(unasked) == ["loop_failing"]
        assert unasked.lacking == ("Redis was not asked",)

    def test_a_lost_delivery_and_nobody_to_take_it_back(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        scene.redis.flushdb()
        assert codes(scene.look(job_id, "recall", seconds=6)) == ["delivery_lost", "loop_silent"]

    def test_what_is_past_its_deadline_waits_for_the_expire_loop_alone(self, scene: Scene) -> None:
        job_id = scene.record(deadline=timedelta(seconds=30), queue="mail")
        scene.operator.pause("mail", **WHY)
        found = scene.look(job_id, "expire", "dispatch", seconds=31)
        assert codes(found) == ["deadline_passed", "loop_silent"]
        assert found.reasons[1].read["loop"] == "expire"


class TestEvidence:
    def test_when_the_next_token_comes_and_who_goes_before(self, scene: Scene) -> None:
        ids = [scene.record_limited(rate=1, per=60) for _ in range(3)]
        scene.bench.dispatch_all()
        scene.bench.claim(ids[0])
        first, second = (
            next(reason for reason in scene.look(job).reasons if reason.code == "limit_tokens")
            for job in ids[1:]
        )
        started_at = scene.bench.job(ids[0])["started_at"]
        assert first.until is not None
        assert abs(first.until - started_at - timedelta(seconds=60)) < timedelta(seconds=1)
        assert (first.read["ahead"], second.read["ahead"], second.until) == ("0", "1", None)

    def test_what_goes_before_a_limited_job_is_counted_in_its_lane(self, scene: Scene) -> None:
        running, *_ = (scene.record() for _ in range(5))
        scene.bench.dispatch(prefetch=2)
        scene.bench.claim(running)
        reason = scene.look(scene.record_limited(concurrency=1)).reasons[0]
        assert reason.code == "workers_busy"
        assert "and 1 due job of its queue and partition or in Redis is ahead of it" in reason.says

    def test_a_job_that_is_next_has_no_job_ahead(self, scene: Scene) -> None:
        running = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(running)
        reason = scene.look(scene.record()).reasons[0]
        assert reason.code == "workers_busy"
        assert reason.says.endswith("is running a job, and no due job is ahead of it.")

    def test_a_heavy_job_finds_too_little_room_beside_others(self, scene: Scene) -> None:
        scene.make_bench("idle")
        ids = [scene.record_limited(concurrency=10, weight=weight) for weight in (4, 8)]
        scene.bench.dispatch_all()
        scene.bench.claim(ids[0])
        (reason,) = scene.look(ids[1]).reasons
        said = "The limiter api has too few places for its weight of 8: 4 of 10 are taken."
        assert (reason.code, reason.says) == ("limit_concurrency", said)

    def test_a_heavy_job_finds_too_few_tokens(self, scene: Scene) -> None:
        scene.make_bench("idle")
        ids = [
            scene.record_limited(rate=1, per=60, burst=10, weight=weight) for weight in (4, 8, 1)
        ]
        scene.bench.dispatch_all()
        scene.bench.claim(ids[0])
        (reason,) = scene.look(ids[1]).reasons
        assert reason.says == (
            "The limiter api has too few tokens for its weight of 8: 1 comes back every 60 s, and "
            "0 jobs of its queue and partition are ahead of it."
        )
        (behind,) = scene.look(ids[2]).reasons
        assert behind.says == (
            "The limiter api has room, but 1 job of its queue and partition is ahead of it and "
            "needs that room."
        )

    def test_who_holds_a_full_limiter(self, scene: Scene) -> None:
        ids = [scene.record_limited(concurrency=2) for _ in range(3)]
        scene.bench.dispatch_all()
        for job_id in ids[:2]:
            scene.bench.claim(job_id)
        reason = scene.look(ids[2]).reasons[0]
        assert reason.code == "limit_concurrency"
        assert reason.read["holders"] == f"job/{ids[0]}, job/{ids[1]}"

    def test_who_paused_and_why(self, scene: Scene) -> None:
        (reason,) = queue_paused(scene).reasons
        assert (reason.by, reason.quote) == (WHY["actor"], WHY["reason"])
        assert (reason.action, reason.target) == ("queue.resume", "queue/default")
        assert reason.since is not None

    def test_when_a_wish_to_cancel_takes_effect(self, scene: Scene) -> None:
        (reason,) = cancel_requested(scene).reasons
        assert (reason.by, reason.quote) == (WHY["actor"], WHY["reason"])
        assert "with its next heartbeat, within 10 s" in reason.todo
        reason, _ = scene.look(1, minutes=3, heartbeats=False).reasons
        assert "Its worker sends no heartbeat" in reason.todo

    def test_when_the_next_attempt_is_due_and_after_which(self, scene: Scene) -> None:
        (reason,) = backing_off(scene).reasons
        assert reason.says.startswith("Attempt 1 of 5 failed")
        assert reason.read["last_attempt"] == "raised"
        assert reason.until is not None
        assert (reason.action, reason.target) == ("job.retry", f"job/{1}")

    def test_a_snooze_is_not_the_host_s_wish(self, scene: Scene) -> None:
        job_id = scene.record()
        scene.bench.dispatch()
        scene.bench.claim(job_id)
        scene.bench.record(job_id, 1, Outcome(kind="snoozed", delay_seconds=60))
        (reason,) = scene.look(job_id).reasons
        assert (reason.code, reason.source) == ("scheduled", "worker")

    def test_who_listened_last(self, scene: Scene) -> None:
        gone = scene.make_bench("gone", queues=("mail",))
        (reason,) = scene.look(scene.record(queue="mail"), seconds=50).reasons
        assert reason.code == "no_live_worker"
        assert reason.read["last_worker"] == "gone"
        workers.stop(gone.connection, gone.worker_id, read_clock(gone.connection))
        assert scene.look(scene.record(queue="mail")).reasons[0].read["last_worker"] == "gone"

    def test_how_many_go_before_it(self, scene: Scene) -> None:
        running, queued, also_queued, behind, last = (scene.record() for _ in range(5))
        scene.bench.dispatch(prefetch=3)
        scene.bench.claim(running)
        # Its worker has taken it out of the list.
        scene.redis.lpop(broker_of(scene.bench.host).queue("default").key)
        urgent = scene.record(priority=0)
        ahead = {
            job: scene.look(job).reasons[0].read["ahead"]
            for job in (queued, also_queued, behind, last, urgent)
        }
        assert ahead == {queued: "0", also_queued: "1", urgent: "2", behind: "3", last: "4"}
        assert scene.look(behind).reasons[0].read["longest"].startswith(f"job/{running} since")

    def test_one_idle_worker_is_enough(self, scene: Scene) -> None:
        scene.make_bench("idle")
        running, waiting = scene.record(), scene.record()
        scene.bench.dispatch()
        scene.bench.claim(running)
        found = scene.look(waiting)
        assert codes(found) == []
        assert "2 workers live, 1 idle" in found.ruled_out

    @pytest.mark.parametrize(("setting", "processes"), [(None, 1), (None, 3), (7, 1)])
    def test_the_prefetch_is_the_dispatcher_s(
        self, scene: Scene, setting: int | None, processes: int
    ) -> None:
        scene.bench.connection.execute("UPDATE opsjobs.workers SET processes = %s", [processes])
        if setting is not None:
            scene.operator.set_prefetch("default", setting, **WHY)
        ids = [scene.record() for _ in range(12)]
        queued = scene.bench.dispatch()
        (full,) = scene.look(ids[-1], heartbeats=False).reasons
        assert full.read["prefetch"] == f"{queued} of {queued}"


def test_an_unknown_job_is_an_error_of_ours(app: Flask, opsjobs: OpsJobs) -> None:
    with app.app_context(), pytest.raises(UnknownJob, match="there is no job 42"):
        opsjobs.explain(42)


@pytest.fixture
def site(database_url: str, redis_url: str) -> Iterator[Flask]:
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        yield app
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_real_worker_that_is_busy(
    site: Any, children: Children, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    gate = str(tmp_path / "gate")
    running = host_module.hold.enqueue(gate=gate)
    host_module.db.session.commit()
    children.flask("opsjobs", "worker", *kind)
    wait_until(Path(gate + ".begun").exists, 20)
    waiting = host_module.add.enqueue(a=1, b=2)
    host_module.db.session.commit()
    # The start of a job is written when it has run for 50 ms.
    # A worker may also take the job ahead for a moment, until it knows that the other one takes long.

    def find_reason() -> Any:
        found = host_module.opsjobs.explain(waiting.id)
        return codes(found) == ["workers_busy"] and found.reasons[0]

    reason = wait_until(find_reason)
    assert reason.read["workers"] == "1 of 1 busy"
    assert reason.read["longest"].startswith(f"job/{running.id} since")
    Path(gate).touch()


def test_a_worker_is_busy_when_each_of_its_children_has_a_job(scene: Scene) -> None:
    scene.bench.connection.execute("UPDATE opsjobs.workers SET processes = 2")
    first, second, waiting = (scene.record() for _ in range(3))
    scene.bench.dispatch()
    scene.bench.claim(first)
    assert codes(scene.look(waiting)) == []
    scene.bench.claim(second)
    (reason,) = scene.look(waiting).reasons
    assert (reason.code, reason.read["workers"]) == ("workers_busy", "1 of 1 busy")


def test_a_reserved_job_whose_worker_is_silent_or_shall_stop(scene: Scene) -> None:
    job_id = scene.record(deadline=timedelta(seconds=30))
    take(scene.bench)
    # Its worker ends it when the deadline has passed: the expire loop leaves it alone.
    assert codes(scene.look(job_id, seconds=31)) == ["reserved"]
    scene.operator.cancel(job_id, **WHY)
    first, second = scene.look(job_id).reasons
    assert (first.code, second.code) == ("cancel_requested", "reserved")
    assert first.says == "Somebody asked to cancel it after a worker had taken it."
    assert codes(scene.look(job_id, minutes=3, heartbeats=False)) == [
        "cancel_requested",
        "worker_silent",
    ]


def test_the_documentation_has_every_code_and_key_and_no_other() -> None:
    page = (sources.ROOT / "docs" / "explain.md").read_text()
    assert ":::{explain-reasons}" in page  # a table of `REASON_KINDS`
    keys = {
        key
        for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    found = explain_schema(42, 0, datetime.now(UTC)).to_json(str)
    group = WaitingGroup(None, "", 1, "", passes=True, example=1)
    many = WaitingExplanation(1, (group,), False, (), datetime.now(UTC)).to_json(str)
    assert keys == {"format", *found, *found["reasons"][0], *many, *many["groups"][0]}
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", page))
    assert named - keys <= {*CODES}
