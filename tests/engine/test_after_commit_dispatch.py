"""From the host's commit to the worker: nothing is lost in between, and a worker refills its own prefetch."""

from __future__ import annotations

import os
from typing import Any

import pytest
from redis import Redis, RedisError
from rq import Queue

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.after_commit import AfterCommitDispatch
from flask_opsjobs.engine.dispatch.dispatch import Refill
from flask_opsjobs.engine.redis.broker import Delivery, rq_id
from flask_opsjobs.engine.worker.children import kill_group
from flask_opsjobs.host import DueLane
from tests.engine.site import enqueue, rows, state_of
from tests.support.host import add, backend_pid
from tests.support.host import db as host_db
from tests.support.processes import Children
from tests.support.waiting import wait_until

KINDS = [(), ("--jobs-per-process", "1")]


def all_finished(count: int) -> bool:
    return rows("SELECT state, count(*) FROM opsjobs.jobs GROUP BY state") == [("finished", count)]


@pytest.mark.parametrize("kind", KINDS)
def test_claim_against_commit(site: Any, children: Children, kind: tuple[str, ...]) -> None:
    """Pitfall: push before commit. An idle worker takes each delivery at once, and must find its row."""
    children.flask("opsjobs", "worker", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.2).wait_for("listens to")
    for number in range(60):
        job_id = enqueue(add, a=number, b=0)
        wait_until(lambda job_id=job_id: state_of(job_id) == "finished", 10)
    # No loop ran: each went by its first delivery.
    assert rows("SELECT DISTINCT dispatch_no, attempt FROM opsjobs.jobs") == [(1, 1)]
    assert rows("SELECT counts FROM opsjobs.workers") == [({},)]


def test_a_job_is_inserted_as_queued_when_the_prefetch_has_room(
    site: Any, redis_client: Redis
) -> None:
    first = enqueue(add, a=1, b=1)
    second = add.enqueue(a=2, b=2)
    assert second.state == "queued", "the first dispatch saw room"
    assert redis_client.llen(Queue("default", connection=redis_client).key) == 1, (
        "and Redis waits for the commit"
    )
    host_db.session.commit()
    assert Queue("default", connection=redis_client).job_ids == [
        rq_id(first, 1),
        rq_id(second.id, 1),
    ]


def test_the_room_of_what_a_worker_has_taken_is_used_again(
    site: Any, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.after_commit._BELIEVED_SECONDS", 60)
    enqueue(add, a=0, b=0)
    for number in range(1, 6):
        redis_client.lpop(Queue("default", connection=redis_client).key)
        assert add.enqueue(a=number, b=0).state == "queued", f"job {number}"
        host_db.session.commit()
    # Nobody takes them now: the prefetch is 2.
    states = []
    for number in range(4):
        states.append(add.enqueue(a=number, b=1).state)
        host_db.session.commit()
    assert states == ["queued", "available", "available", "available"]


@pytest.mark.parametrize("action", ["pause", "drain"])
def test_no_job_is_inserted_as_queued_in_a_queue_that_was_stopped_since_its_room_was_seen(
    site: Any, redis_client: Redis, action: str
) -> None:
    enqueue(add, a=1, b=1)
    stopped = {"actor": "ops-demo", "reason": "the relay is down"}
    assert getattr(Operator(site.extensions["opsjobs"]), action)("default", **stopped).is_done
    waiting = add.enqueue(a=2, b=2)
    host_db.session.commit()
    assert (waiting.state, state_of(waiting.id)) == ("available", "available")
    assert rq_id(waiting.id, 1) not in Queue("default", connection=redis_client).job_ids


def test_a_job_inserted_as_queued_is_never_pushed_when_the_host_rolls_back(
    site: Any, redis_client: Redis
) -> None:
    enqueue(add, a=1, b=1)
    assert add.enqueue(a=2, b=2).state == "queued"
    host_db.session.rollback()
    enqueue(add.options(delay=60), a=3, b=3)
    assert len(Queue("default", connection=redis_client).job_ids) == 1


def test_an_outage_of_redis_is_logged_once(
    make_app: Any,
    own_valkey: Any,
    opsjobs: Any,
    note: Any,
    db: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.after_commit._PAUSE_SECONDS", 0)
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url, OPSJOBS_PREFETCH=100)
    dispatcher = AfterCommitDispatch(app.extensions["opsjobs"])

    def said() -> list[str]:
        caplog.clear()
        for _ in range(3):
            note.enqueue()
            db.session.commit()
            dispatcher.push([DueLane("default", "default")])
        return [record.getMessage() for record in caplog.records]

    for _ in range(2):
        own_valkey.kill()
        (left,) = said()
        assert "jobs are left to workers" in left
        own_valkey.start()
        assert said() == ["jobs are dispatched after commits again"]


def test_a_recorder_tells_of_an_outage_of_redis_once_and_when_it_is_over(
    make_app: Any,
    own_valkey: Any,
    opsjobs: Any,
    note: Any,
    db: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.dispatch._PAUSE_SECONDS", 0)
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url, OPSJOBS_PREFETCH=100)
    host = app.extensions["opsjobs"]
    told: list[RedisError | None] = []
    refill = Refill(host, told.append)

    def dispatch() -> list[bool]:
        told.clear()
        with host.spare.one() as connection:
            for _ in range(3):
                note.enqueue()
                db.session.commit()
                refill.dispatch(connection, [("default", "default")], read_clock(connection))
        return [error is not None for error in told]

    for _ in range(2):
        own_valkey.kill()
        assert dispatch() == [True]
        own_valkey.start()
        assert dispatch() == [False]
    assert caplog.records == []


def test_a_job_inserted_as_queued_while_redis_is_away_waits_for_it(
    make_app: Any, own_valkey: Any, database_url: str
) -> None:
    from tests.support import host as host_module

    app = host_module.create_app(
        SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=own_valkey.url
    )
    with app.app_context():
        enqueue(add, a=1, b=1)
        born = add.enqueue(a=2, b=2)
        assert born.state == "queued"
        own_valkey.kill()
        host_db.session.commit()
        assert state_of(born.id) == "available"
        host_db.session.remove()
        host_db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_the_prefetch_is_refilled_by_the_flush(
    site: Any, children: Children, kind: tuple[str, ...]
) -> None:
    """Pitfall: a prefetch that is refilled once a second runs so many jobs a second.

    Here no loop runs at all.
    """
    add.enqueue_many({"a": number, "b": 0} for number in range(50))
    host_db.session.commit()
    children.flask("opsjobs", "worker", *kind, OPSJOBS_PREFETCH=2)
    wait_until(lambda: all_finished(50), 30)


@pytest.mark.parametrize("kind", KINDS)
def test_a_delivery_that_is_not_claimed_leaves_no_trace_and_is_counted(
    site: Any, children: Children, redis_client: Redis, kind: tuple[str, ...]
) -> None:
    """Pitfall: a delivery dropped in execute_job leaves its hash for ever,
    and its id in the intermediate list.
    """
    site.extensions["opsjobs"].broker.push([Delivery(4711, 1, "default", "add", 5, None)])
    children.flask("opsjobs", "worker", "default", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.2)
    wait_until(lambda: rows("SELECT counts FROM opsjobs.workers") == [({"no_row": 1},)], 20)
    assert [key for key in redis_client.keys("*") if b"4711" in key] == []
    assert redis_client.llen(Queue("default", connection=redis_client).intermediate_queue_key) == 0


@pytest.mark.sessions
def test_each_child_connects_for_itself(site: Any, children: Children) -> None:
    """Pitfall: a child that keeps its parent's pool shares a socket with it, and breaks it."""
    first, second = enqueue(backend_pid), enqueue(backend_pid)
    children.flask("opsjobs", "worker", "--jobs-per-process", "1")
    wait_until(lambda: all_finished(2), 20)
    (one,), (two,) = rows(
        "SELECT value FROM opsjobs.outputs WHERE job_id IN (:a, :b)", a=first, b=second
    )
    assert one != two


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_a_kill_never_hits_ones_own_group(pid: int) -> None:
    """Pitfall: kill_horse with pid 0, or before the child called setpgrp, kills web, loops and all."""
    with pytest.raises(ValueError, match="is not the pid of a child"):
        kill_group(pid)
    with pytest.raises(ValueError, match="is not the pid of a child"):
        kill_group(os.getpgrp())
