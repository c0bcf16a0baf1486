"""The client that only reads: whatever Redis knows as a write, or does not know yet, is refused unsent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.redis.connections import (
    READS,
    ReadOnlyRedis,
    WriteRefused,
    read_only_queue,
)
from flask_opsjobs.host import Host


@pytest.fixture
def client(redis_client: Redis) -> ReadOnlyRedis:
    redis_client.rpush("line", "a", "b")
    return ReadOnlyRedis(redis_client)


def test_what_may_be_asked_is_a_read_by_the_server_s_own_words(redis_client: Redis) -> None:
    known: dict[str, Any] = redis_client.command()
    for name in READS - {"PING", "INFO", "PUBSUB", "TIME"}:
        assert "readonly" in known[name.lower()]["flags"], name


def test_every_command_of_the_server_that_is_no_read_is_refused(client: ReadOnlyRedis) -> None:
    known: dict[str, Any] = Redis(connection_pool=client.connection_pool).command()
    for name in known:
        if name.upper() not in READS:
            with pytest.raises(WriteRefused, match="is not a read"):
                client.execute_command(name, "line", "x")
            with pytest.raises(WriteRefused), client.pipeline() as pipe:
                pipe.execute_command(name, "line", "x")
    assert client.lrange("line", 0, -1) == [b"a", b"b"]


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.rpush("line", "c"),
        lambda client: client.execute_command("rpush", "line", "c"),
        lambda client: client.execute_command(b"RPUSH", "line", "c"),
        lambda client: client.execute_command("CONFIG SET", "maxmemory", "1"),
        lambda client: client.eval("return redis.call('del', 'line')", 0),
        lambda client: client.flushall(),
        lambda client: client.pipeline().delete("line"),
        lambda client: client.pipeline(transaction=True).delete("line"),
        lambda client: client.transaction(lambda pipe: pipe.delete("line"), "line"),
        lambda client: client.register_script("return 1")(),
        lambda client: client.lock("line").acquire(blocking=False),
    ],
)
def test_no_way_around_it(write: Callable[[ReadOnlyRedis], Any], client: ReadOnlyRedis) -> None:
    with pytest.raises(WriteRefused):
        write(client)
    assert client.lrange("line", 0, -1) == [b"a", b"b"]


def test_reads_work_alone_and_in_a_pipeline(client: ReadOnlyRedis) -> None:
    assert client.llen("line") == 2
    with client.pipeline(transaction=True) as pipe:
        pipe.llen("line")
        pipe.lpos("line", "b")
        assert pipe.execute() == [2, 1]


def test_a_queue_for_pages_cannot_write(host: Host, redis_client: Redis) -> None:
    queue = read_only_queue(broker_of(host).connections, "mail")
    assert queue.count == 0
    with pytest.raises(WriteRefused):
        queue.empty()
    with pytest.raises(WriteRefused):
        queue.enqueue("os.getpid")
    assert redis_client.keys("*") == []
