"""The integrity check: the difference is 0 at rest whatever happens at once,
and each kind of loss is named.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile.recall import Suspects, recall_lost
from flask_opsjobs.engine.redis.broker import Broker, broker_of, rq_id
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.jobs import transitions as jobs
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline import integrity, retention
from flask_opsjobs.lifeline.integrity import IntegrityRow, list_integrity_checks
from flask_opsjobs.loops import check_integrity, roll_up
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing import perform_due
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.workers import transitions as workers
from flask_opsjobs.workflows import transitions as workflows
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.support.clock import Clock
from tests.support.dispatching import TwoRedis
from tests.support.engine import Bench, race

RecordJob = Callable[..., int]


class Keeper:
    """The loop of one process: each look is a quarter
    of a minute after the last one, so that it counts too.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.runner = Runner(check_integrity.LOOP, bench.host, "one")
        self.now = read_clock(bench.connection) + timedelta(seconds=10)

    def look(self) -> dict[str, IntegrityRow]:
        self.now += timedelta(seconds=15)
        self.runner.run_once(self.bench.connection, self.now)
        with Session(self.bench.host.engine) as session:
            return {check.queue: check for check in list_integrity_checks(session)}

    def look_twice(self) -> dict[str, IntegrityRow]:
        self.look()
        return self.look()


@pytest.fixture
def keeper(bench: Bench) -> Keeper:
    return Keeper(bench)


def beat(bench: Bench, number: int, reserved: list[str], at: datetime) -> None:
    workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(number, reserved=reserved), at
    )


def last_run(bench: Bench) -> dict[str, Any]:
    """The note of the loop's last pass."""
    return bench.row("SELECT report, error FROM opsjobs.loop_runs ORDER BY last_at DESC LIMIT 1")


def test_each_state_is_counted_with_plain_jobs(
    bench: Bench, keeper: Keeper, record_job: RecordJob, start_job: StartJob
) -> None:
    for kind in ("returned", "returned", "raised", "canceled"):
        bench.record(start_job(bench, max_attempts=1), 1, Outcome(kind))
    start_job(bench)
    record_job(delay=60)
    gone = record_job(queue="mail")
    record_job()
    for plain, queue, state in (
        ("a", "default", "finished"),
        ("b", "rq", "queued"),
        ("c", "rq", "unknown"),
    ):
        bench.connection.execute(_PLAIN, {"rq_id": plain, "queue": queue, "state": state})
    keeper.look()
    assert states(bench) == {
        "default": {
            "finished": 3,
            "failed": 1,
            "canceled": 1,
            "started": 1,
            "scheduled": 1,
            "available": 1,
        },
        "mail": {"available": 1},
        "rq": {"queued": 1, "unknown": 1},
    }
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE origin = 'rq' OR id = %s", [gone])
    keeper.look()
    assert states(bench)["default"]["finished"] == 2
    assert (states(bench)["mail"], states(bench)["rq"]) == ({}, {})


_PLAIN = """
    INSERT INTO opsjobs.jobs (origin, rq_id, task, queue, lane, state, args, max_attempts, created_at, due_at,
        dispatched_at, started_at, ended_at, ended_by)
    SELECT 'rq', %(rq_id)s, 'plain', %(queue)s, %(queue)s, %(state)s, '{}', 1, now(), now(), now(), now(),
        CASE WHEN %(state)s <> 'queued' THEN now() END,
        CASE %(state)s WHEN 'finished' THEN 'returned' WHEN 'unknown' THEN 'unseen' END
"""


def states(bench: Bench) -> dict[str, dict[str, int]]:
    """How many jobs each queue has in each state, as counted."""
    rows = bench.rows("SELECT queue, states FROM opsjobs.integrity_checks")
    return {row["queue"]: row["states"] for row in rows}


def test_at_rest_nothing_is_missing(
    bench: Bench, keeper: Keeper, record_job: RecordJob, start_job: StartJob
) -> None:
    assert keeper.look_twice() == {}
    done = start_job(bench)
    bench.record(done, 1, Outcome("returned"))
    broker_of(bench.host).forget("default", [rq_id(done, 1)])  # as its worker does
    held = start_job(bench)
    beat(bench, 1, [f"{held}-1"], keeper.now)
    record_job(delay=60)
    record_job(queue="mail")
    record_job()
    bench.dispatch(prefetch=1_000)
    found = keeper.look_twice()
    assert [check for check in found.values() if not check.is_balanced] == []
    check = found["default"]
    assert (
        check.enqueued,
        check.stored,
        check.waiting,
        check.queued,
        check.started,
        check.final,
    ) == (
        4,
        4,
        1,
        1,
        1,
        1,
    )
    later = keeper.now + timedelta(days=100)
    assert retention.retain(bench.connection, bench.host.settings, later)["finished jobs"] == 1
    check = keeper.look_twice()["default"]
    assert (check.enqueued, check.deleted, check.stored, check.difference) == (4, 1, 3, 0)


def test_steps_and_members_are_counted_as_jobs(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, keeper: Keeper
) -> None:
    """At rest after runs, a map, a callback, retries, a skip and retention."""
    fails = {"a", "z"}

    @opsjobs.task(record_output=True, queue="mail")
    def letters() -> list[str]:
        return ["a", "b", "c"]

    @opsjobs.task(max_attempts=2, backoff=0)
    def send(letter: str) -> None:
        if letter in fails:
            raise ValueError("on purpose")

    flow = opsjobs.workflow("post", on_end=opsjobs.task(_report))
    sent = flow.map("send", send, over=flow.step("letters", letters).result, as_="letter")
    paid = flow.wait("paid", signal="paid", after=[sent])
    last = flow.step("last", send, letter="z", after=[paid])
    flow.step("behind", send, letter="b", after=[last])
    run = flow.start()
    db.session.commit()
    perform_due()
    at_rest = keeper.look_twice()
    assert [check for check in at_rest.values() if not check.is_balanced] == []
    # The map's job, its members, the wait, two steps behind it and the callback.
    assert (at_rest["default"].enqueued, at_rest["mail"].enqueued) == (8, 1)
    _change(bench, run.id, "send[0]", is_retry=True)
    opsjobs.signal("paid")
    fails.remove("a")
    db.session.commit()
    perform_due()
    _change(bench, run.id, "last", is_retry=False)
    perform_due()
    assert bench.row("SELECT state, end_no FROM opsjobs.workflows") == {
        "state": "finished",
        "end_no": 3,
    }
    at_rest = keeper.look_twice()
    assert [check for check in at_rest.values() if not check.is_balanced] == []
    assert at_rest["default"].enqueued == 10
    later = keeper.now + timedelta(days=100)
    assert sum(retention.retain(bench.connection, bench.host.settings, later).values()) > 11
    for queue, number in {"default": 10, "mail": 1}.items():
        check = bench.row(
            "SELECT sum(enqueued) AS enqueued, sum(deleted) AS deleted FROM opsjobs.job_count_deltas"
            " WHERE queue = %s",
            queue,
        )
        assert (check["enqueued"], check["deleted"]) == (number, number)
    assert keeper.look_twice() == {}


def _report(workflow_id: int) -> None: ...


def _change(bench: Bench, run: int, name: str, *, is_retry: bool) -> None:
    """Retry or skip a step, as the actions do."""
    connection, now = bench.connection, read_clock(bench.connection)
    step = bench.row("SELECT job_id FROM opsjobs.steps WHERE name = %s", name)["job_id"]
    with connection.transaction():
        workflows.lock(connection, [run])
        workflows.reopen(connection, run, [step], now)
        if is_retry:
            jobs.retry(connection, [step], now)
        else:
            endings.skip(connection, [step], now, "42", "known to be well")


def test_a_row_that_was_deleted_manually_is_a_difference(
    bench: Bench, keeper: Keeper, record_job: RecordJob
) -> None:
    record_job(queue="mail")
    lost = record_job()
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [lost])
    found = keeper.look()
    assert (found["default"].difference, found["mail"].difference) == (1, 0)
    assert found["default"].is_balanced is False


def test_every_queue_that_differs_is_an_incident(
    bench: Bench, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in turns."""
    monkeypatch.setattr(integrity, "_AT_ONCE", 2)
    queues = [f"queue-{number}" for number in range(5)]
    for queue in queues:
        bench.connection.execute(
            "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)"
            " VALUES ('note', %(queue)s, %(queue)s, 'available', '{}', 1, now(), now())",
            {"queue": queue},
        )
    for _ in range(3):
        keeper.look()
    found = bench.rows("SELECT subject FROM opsjobs.incidents WHERE class = 'integrity_off'")
    assert sorted(row["subject"] for row in found) == [f"queue/{queue}" for queue in queues]


def test_a_row_that_came_from_nowhere_is_below_zero(
    bench: Bench, keeper: Keeper, record_job: RecordJob
) -> None:
    job_id = record_job()
    # A copy of a row, as a careless restore would leave it.
    bench.connection.execute(
        "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)"
        " SELECT task, queue, lane, state, args, max_attempts, created_at, due_at FROM opsjobs.jobs"
        " WHERE id = %s",
        [job_id],
    )
    assert keeper.look()["default"].difference == -1


def test_a_flushed_redis_shows_until_the_jobs_are_recalled(
    bench: Bench, keeper: Keeper, record_job: RecordJob, redis_client: Redis
) -> None:
    record_job()
    record_job()
    bench.dispatch(prefetch=1_000)
    assert keeper.look_twice()["default"].queued_nowhere == 0
    redis_client.flushdb()
    # One look is not believed: a delivery may be on its way between two of Redis' structures.
    assert keeper.look()["default"].queued_nowhere == 0
    assert keeper.look()["default"].queued_nowhere == 2
    suspects = Suspects()
    for _ in range(2):
        keeper.now += timedelta(seconds=30)
        suspects = recall_lost(
            bench.connection, broker_of(bench.host), keeper.now, suspects, 5, 30
        ).suspects
    check = keeper.look()["default"]
    assert (check.queued_nowhere, check.queued, check.waiting) == (0, 0, 2)


def test_a_started_job_that_two_heartbeats_lack_is_reserved_by_nobody(
    bench: Bench, keeper: Keeper, start_job: StartJob
) -> None:
    job_id = start_job(bench)
    assert keeper.look_twice()["default"].started_unreserved == 0  # no heartbeat since the claim
    beat(bench, 1, [], keeper.now)
    assert (
        keeper.look_twice()["default"].started_unreserved == 0
    )  # that one may have been under way
    beat(bench, 2, [], keeper.now)
    assert keeper.look()["default"].started_unreserved == 1
    beat(bench, 3, [f"{job_id}-1"], keeper.now)
    assert keeper.look()["default"].started_unreserved == 0


def test_a_started_job_of_a_worker_that_is_gone(
    bench: Bench, keeper: Keeper, start_job: StartJob
) -> None:
    start_job(bench)
    workers.stop(bench.connection, bench.worker_id, keeper.now)
    assert keeper.look()["default"].started_unreserved == 0
    assert keeper.look()["default"].started_unreserved == 1


def test_a_delivery_without_a_row(bench: Bench, keeper: Keeper, record_job: RecordJob) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [job_id])
    assert keeper.look()["default"].orphan_deliveries == 0
    check = keeper.look()["default"]
    assert (check.orphan_deliveries, check.difference) == (1, 1)
    assert last_run(bench)["report"] == "1 delivery in Redis without a job"


def test_rows_are_counted_while_redis_is_away(
    bench: Bench, keeper: Keeper, record_job: RecordJob, app: Flask
) -> None:
    record_job()
    before = keeper.look_twice()["default"]
    bench.host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    record_job()
    after = keeper.look()["default"]
    assert (after.stored, after.counted_at) == (2, keeper.now)
    assert after.compared_at == before.compared_at  # its age says that nobody could look
    assert "Redis does not answer" in last_run(bench)["error"]


def test_one_redis_away_does_not_stop_the_comparison_with_another(
    bench: Bench,
    keeper: Keeper,
    record_job: RecordJob,
    away: Broker,
    own_valkey: Valkey,
    redis_client: Redis,
) -> None:
    bench.host.broker = Broker(TwoRedis(broker_of(bench.host), away))
    record_job(queue="elsewhere")
    record_job()
    bench.dispatch("elsewhere")
    bench.dispatch()
    before = keeper.look_twice()
    assert {name: check.queued_nowhere for name, check in before.items()} == {
        "default": 0,
        "elsewhere": 0,
    }
    own_valkey.kill()
    redis_client.flushdb()
    after = keeper.look_twice()
    assert (after["default"].queued_nowhere, after["default"].compared_at) == (1, keeper.now)
    assert after["elsewhere"].compared_at == before["elsewhere"].compared_at, "nobody could look"
    assert after["elsewhere"].queued_nowhere == 0
    assert "Redis does not answer" in last_run(bench)["error"]


def test_counting_takes_a_fiftieth_of_the_time(bench: Bench, record_job: RecordJob) -> None:
    record_job()
    now = read_clock(bench.connection)

    def is_counted(seconds: float) -> bool:
        return integrity.count_rows(bench.connection, now + timedelta(seconds=seconds))

    assert [is_counted(seconds) for seconds in (0, 9, 10, 19, 20)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    # As with ten million jobs.
    bench.connection.execute("UPDATE opsjobs.integrity_checks SET took_seconds = 7")
    assert [is_counted(20 + seconds) for seconds in (349, 350)] == [False, True]
    assert is_counted(-3600) is True  # the clock was stepped back


def test_only_one_of_two_processes_counts(make_bench: MakeBench, record_job: RecordJob) -> None:
    benches = [make_bench() for _ in range(4)]
    record_job()
    now = read_clock(benches[0].connection)
    answers = race(
        *(lambda bench=bench: integrity.count_rows(bench.connection, now) for bench in benches)
    )
    assert sorted(answers) == [False, False, False, True]


def test_writers_retention_and_folding_never_show_a_difference(
    app: Flask, make_bench: MakeBench, note: Task, clock: Clock
) -> None:
    counter, *others = (make_bench(f"worker-{number}") for number in range(4))
    later = clock.now + timedelta(days=100)
    seen: list[tuple[int, int]] = []
    going = [True]

    def record() -> None:
        with app.app_context(), Session(counter.host.engine) as session:
            for number in range(60):
                note.options(session=session).enqueue(text="")
                note.options(session=session).enqueue_many({"text": ""} for _ in range(5))
                session.commit() if number % 4 else session.rollback()

    def work(bench: Bench) -> None:
        while going[0]:
            bench.connection.execute(
                "UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned'"
                " WHERE id IN (SELECT id FROM opsjobs.jobs WHERE state = 'available' LIMIT 20)"
            )
            retention.retain(bench.connection, bench.host.settings, later, 15)

    def fold(bench: Bench) -> None:
        runner = Runner(roll_up.LOOP, bench.host, "one")
        while going[0]:
            runner.run_once(bench.connection, clock.now)

    def count() -> None:
        try:
            for _ in range(80):
                assert integrity.count_rows(counter.connection, clock.forward(minutes=10))
                (row,) = counter.rows(
                    "SELECT coalesce(sum(enqueued), 0)::int AS enqueued,"
                    " coalesce(sum(enqueued - deleted - stored), 0)::int AS missing FROM "
                    "opsjobs.integrity_checks"
                )
                seen.append((row["enqueued"], row["missing"]))
        finally:
            going[0] = False

    answers: list[Any] = race(
        record, record, lambda: work(others[0]), lambda: fold(others[1]), count
    )
    assert answers == [None] * 5
    assert [missing for _, missing in seen] == [0] * 80
    assert len({enqueued for enqueued, _ in seen}) > 5  # it was counted while they wrote
