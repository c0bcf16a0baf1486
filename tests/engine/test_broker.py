"""What the broker writes is what RQ's own enqueue would have written."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis, RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from flask_opsjobs.engine.redis.broker import FUNCTION, Broker, Delivery, broker_of
from flask_opsjobs.engine.redis.connections import WriteOnlySerializer
from flask_opsjobs.host import Host

DELIVERY = Delivery(id=7, dispatch_no=3, queue="mail", task="send", priority=5, timeout_seconds=30)


@pytest.fixture
def broker(host: Host) -> Broker:
    return broker_of(host)


def test_rq_reads_a_delivery_as_one_of_its_own(broker: Broker, redis_client: Redis) -> None:
    broker.push([DELIVERY])
    ours = RQJob.fetch("opsjobs-7-3", connection=redis_client)
    like = Queue("likewise", connection=redis_client).enqueue(
        FUNCTION, job_timeout=90, result_ttl=0, failure_ttl=3600, description="send 7"
    )
    theirs = RQJob.fetch(like.id, connection=redis_client)
    for name in (
        "func_name",
        "args",
        "kwargs",
        "timeout",
        "result_ttl",
        "failure_ttl",
        "description",
        "meta",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_status() == theirs.get_status() == "queued"
    assert (ours.origin, ours.enqueued_at is not None) == ("mail", True)
    assert Queue("mail", connection=redis_client).job_ids == ["opsjobs-7-3"]
    assert Queue("mail", connection=redis_client) in Queue.all(connection=redis_client)


def test_no_field_is_unknown_to_rq(broker: Broker, redis_client: Redis) -> None:
    broker.push([DELIVERY])
    ours = set(redis_client.hgetall(RQJob.key_for("opsjobs-7-3")))
    like = Queue("likewise", connection=redis_client).enqueue(
        FUNCTION, job_timeout=90, result_ttl=0, failure_ttl=9
    )
    assert ours <= set(redis_client.hgetall(RQJob.key_for(like.id)))


def test_many_deliveries_keep_their_order_and_urgent_ones_come_first(
    broker: Broker, redis_client: Redis
) -> None:
    deliveries = [
        Delivery(
            number, 1, "mail", "send", priority=0 if number in (3, 600) else 5, timeout_seconds=None
        )
        for number in range(1, 1201)
    ]
    broker.push(deliveries)
    urgent, rest = [600, 3], [number for number in range(1, 1201) if number not in (3, 600)]
    ids = [f"opsjobs-{number}-1" for number in (*urgent, *rest)]
    assert Queue("mail", connection=redis_client).job_ids == ids
    for rq_id in (ids[0], ids[-1]):
        found = RQJob.fetch(rq_id, connection=redis_client)
        assert (found.description, found.timeout) == (f"send {rq_id.split('-')[1]}", -1)


def test_forget_leaves_no_trace(broker: Broker, redis_client: Redis) -> None:
    broker.push([DELIVERY])
    broker.forget("mail", ["opsjobs-7-3"])
    assert [key for key in redis_client.keys("*") if b"opsjobs" in key] == []
    assert Queue("mail", connection=redis_client).job_ids == []


def test_our_queues_cannot_unpickle(broker: Broker, redis_client: Redis) -> None:
    with pytest.raises(RuntimeError, match="never unpickles"):
        broker.queue("mail").serializer.loads(b"anything")
    assert WriteOnlySerializer().dumps({}) != b""


def test_a_queue_of_the_hosts_flask_rq_gives_connection_and_serializer(
    make_app: Any, redis_url: str
) -> None:
    """Flask-RQ builds synchronous queues under TESTING: a push through them would run the job."""
    from flask_rq import RQ

    app = make_app(OPSJOBS_REDIS_URL=None, RQ_CONNECTION=redis_url, RQ_QUEUES=["default", "mail"])
    RQ(app)
    app.extensions["rq"]._queues[app]["mail"].serializer = JSONSerializer
    broker: Broker = app.extensions["opsjobs"].broker
    broker.push([DELIVERY])
    with Redis.from_url(redis_url) as client:
        assert client.llen(Queue("mail", connection=client).key) == 1
        found = RQJob.fetch("opsjobs-7-3", connection=client, serializer=JSONSerializer)
        assert found.func_name == FUNCTION


def test_a_push_whose_answer_is_given_up_leaves_its_connection_to_others(broker: Broker) -> None:
    pool = broker.connections.wire("mail", quick=True).redis.connection_pool
    given_up = broker.send([DELIVERY], quick=True)
    assert given_up is not None
    given_up.give_up()
    with pytest.raises(RedisError, match="given up"):
        given_up.read()
    taken = pool.get_connection()
    try:
        taken.send_command("PING")
        assert taken.read_response() == b"PONG", "no answer of the push is left in it"
    finally:
        pool.release(taken)
    last = broker.send([DELIVERY], quick=True)
    assert last is not None
    last.read()
    last.give_up()
    assert last.read() >= 1, "what was read stays"
