"""From the host's commit to the worker: nothing is lost in between, and a worker refills its own prefetch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.engine.site import enqueue, give_redis_time, rows, state_of
from tests.support import host as host_module
from tests.support.host import add, backend_pid
from tests.support.host import db as host_db
from tests.support.processes import Children
from tests.support.waiting import wait_until

KINDS = [(), ("--jobs-per-process", "1")]


def all_finished(count: int) -> bool:
    return rows("SELECT state, count(*) FROM opsjobs.jobs GROUP BY state") == [("finished", count)]


@pytest.fixture
def lasting_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that a dispatch saw is believed longer than any test lasts."""
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.after_commit._BELIEVED_SECONDS", 600)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_claim_against_commit(site: Any, children: Children, kind: tuple[str, ...]) -> None:
    """Pitfall: push before commit. An idle worker takes each delivery at once, and must find its row."""
    children.flask("opsjobs", "worker", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.2).wait_for("listens to")
    for number in range(60):
        job_id = enqueue(add, a=number, b=0)
        wait_until(lambda job_id=job_id: state_of(job_id) == "finished", 10)
    # No loop ran, so nobody but the worker delivers again what it gave back while it had no child.
    assert rows("SELECT DISTINCT attempt FROM opsjobs.jobs") == [(1,)]
    assert rows("SELECT counts FROM opsjobs.workers") == [({},)], "each delivery found its row"


@pytest.mark.usefixtures("lasting_room")
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
    wait_until_answered(redis_client, second.id)
    assert Queue("default", connection=redis_client).job_ids == [
        rq_id(first, 1),
        rq_id(second.id, 1),
    ]


@pytest.mark.usefixtures("lasting_room")
def test_the_room_of_what_a_worker_has_taken_is_used_again(site: Any, redis_client: Redis) -> None:
    job_id = enqueue(add, a=0, b=0)
    for _ in range(5):
        wait_until_answered(redis_client, job_id)
        redis_client.lpop(Queue("default", connection=redis_client).key)
        job_id = enqueue_queued()
    # Nobody takes them now: the prefetch is 2.
    wait_until_answered(redis_client, job_id)
    states = []
    for number in range(4):
        states.append(add.enqueue(a=number, b=1).state)
        host_db.session.commit()
    assert states == ["queued", "available", "available", "available"]


@pytest.mark.usefixtures("lasting_room")
@pytest.mark.parametrize(
    ("action", "target"),
    [
        ("queue.pause", "queue/default"),
        ("queue.drain", "queue/default"),
        ("task.pause", f"task/{add.name}"),
    ],
)
def test_no_job_is_inserted_as_queued_that_was_stopped_since_its_room_was_seen(
    site: Any, redis_client: Redis, action: str, target: str
) -> None:
    enqueue(add, a=1, b=1)
    operator = Operator(site.extensions["opsjobs"])
    assert operator.run(action, [target], actor="ops-demo", reason="the relay is down").is_done
    waiting = add.enqueue(a=2, b=2)
    host_db.session.commit()
    assert (waiting.state, state_of(waiting.id)) == ("available", "available")
    assert rq_id(waiting.id, 1) not in Queue("default", connection=redis_client).job_ids


@pytest.mark.usefixtures("lasting_room")
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


@pytest.fixture
def site_of_own_valkey(own_valkey: Any, database_url: str, lasting_room: None) -> Iterator[Any]:
    """The host app with a Redis of its own, in an app context; a job was dispatched, so there is room."""
    app = host_module.create_app(
        SQLALCHEMY_DATABASE_URI=database_url,
        OPSJOBS_REDIS_URL=own_valkey.url,
        OPSJOBS_PREFETCH=1000,
    )
    with app.app_context():
        with pytest.MonkeyPatch.context() as patch:
            give_redis_time(app, patch)
            enqueue(add, a=0, b=0)
        yield app
        host_db.session.remove()
        host_db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.fixture
def patient_site(site_of_own_valkey: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, with a Redis that may be slow: no answer may be missed."""
    give_redis_time(site_of_own_valkey, monkeypatch)
    return site_of_own_valkey


def wait_until_answered(client: Redis, job_id: int) -> None:
    """Redis has the delivery. It writes its answer before it looks at the next command."""
    pushed = rq_id(job_id, 1)
    wait_until(lambda: pushed in Queue("default", connection=client).job_ids, 10)
    client.ping()


def enqueue_queued() -> int:
    job = add.enqueue(a=1, b=1)
    assert job.state == "queued"
    host_db.session.commit()
    return job.id


def test_a_job_inserted_as_queued_while_redis_is_away_waits_for_it(
    site_of_own_valkey: Any, own_valkey: Any
) -> None:
    born = add.enqueue(a=2, b=2)
    assert born.state == "queued"
    own_valkey.kill()
    host_db.session.commit()
    assert state_of(born.id) == "available"


@pytest.mark.parametrize("trouble", ["frozen", "full"])
def test_a_push_that_redis_did_not_take_is_recalled_by_the_next_one(
    site_of_own_valkey: Any, own_valkey: Any, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """The host does not wait for the answer to its last push."""
    with Redis.from_url(own_valkey.url) as client:
        wait_until_answered(client, enqueue_queued())
        if trouble == "frozen":
            own_valkey.freeze()
        else:
            client.config_set("maxmemory", 1)
        first = enqueue_queued()
        assert state_of(first) == "queued"
        assert caplog.records == []
        second = enqueue_queued()
        assert (state_of(first), state_of(second)) == ("available", "available")
        (left,) = [record.getMessage() for record in caplog.records]
        assert "jobs are left to workers" in left
        if trouble == "frozen":
            own_valkey.thaw()


# As under a server that has imported the app, and enqueued, before it forks. Redis gets 5 s for each answer.
FORKING = """
import logging, os
from tests.support import host
logging.basicConfig()
app = host.create_app(OPSJOBS_PREFETCH=1000)
broker = app.extensions["opsjobs"].broker
send = broker.send
broker.send = lambda deliveries, *, quick: send(deliveries)

def enqueue():
    host.add.enqueue(a=1, b=1)
    host.db.session.commit()

with app.app_context():
    enqueue(), enqueue()
    if not (child := os.fork()):
        host.db.engine.dispose(close=False)
        enqueue(), enqueue()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    enqueue(), enqueue()
"""


def test_a_forked_process_leaves_the_answers_of_its_parent_alone(
    site: Any, children: Children, redis_client: Redis
) -> None:
    """The answer to the parent's last push is not read when it forks."""
    child = children.python("-c", FORKING)
    assert child.wait(60) == 0
    assert "WARNING" not in child.log
    assert "ERROR" not in child.log
    # Each was pushed once: none was recalled.
    assert rows("SELECT state, dispatch_no, count(*) FROM opsjobs.jobs GROUP BY 1, 2") == [
        ("queued", 1, 6)
    ]
    assert redis_client.llen(Queue("default", connection=redis_client).key) == 6


def test_threads_read_each_answer_once(
    patient_site: Any, own_valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def commit(_: int) -> None:
        with patient_site.app_context():
            for _ in range(20):
                enqueue_queued()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(commit, range(8)))
    assert caplog.records == []
    assert rows("SELECT state, count(*) FROM opsjobs.jobs GROUP BY state") == [("queued", 161)]
    with Redis.from_url(own_valkey.url) as client:
        assert client.llen(Queue("default", connection=client).key) == 161


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
    job_id = 4711_0815_0000  # so long that the name of no worker contains it
    site.extensions["opsjobs"].broker.push([Delivery(job_id, 1, "default", "add", 5, None)])
    children.flask("opsjobs", "worker", "default", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.2)
    wait_until(lambda: rows("SELECT counts FROM opsjobs.workers") == [({"no_row": 1},)], 20)
    assert [key for key in redis_client.keys("*") if f"{job_id}".encode() in key] == []
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
