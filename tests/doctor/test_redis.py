"""The checks of Redis, with a Valkey whose settings the test changes."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from flask import Flask
from redis import Redis
from rq.suspension import suspend

from flask_opsjobs.doctor import redis as checks
from flask_opsjobs.testing.valkey import Valkey, free_port
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows
from tests.support.waiting import wait_until

NOWHERE = "redis://shop:s3cret@127.0.0.1:1/0"


@pytest.fixture
def server(own_valkey: Valkey) -> Iterator[Redis]:
    """A client of a Valkey of this test."""
    with Redis.from_url(own_valkey.url) as client:
        yield client


@pytest.fixture
def on_it(make_well: MakeApp, own_valkey: Valkey) -> Flask:
    """A host whose Redis that is."""
    return make_well(OPSJOBS_REDIS_URL=own_valkey.url)


@shows("redis.reachable")
def test_redis_that_is_away(make_well: MakeApp, ask: Ask) -> None:
    assert ask("redis.reachable").state == "ok"
    found = ask("redis.reachable", make_well(OPSJOBS_REDIS_URL=NOWHERE))
    assert (found.state, found.sentence) == ("error", "Redis at 127.0.0.1:1/0 does not answer.")
    assert "s3cret" not in f"{found}"


@shows("redis.eviction")
@shows("redis.memory")
def test_each_setting_of_redis(on_it: Flask, server: Redis, ask: Ask) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    assert ask("redis.eviction", on_it).state == "ok", "without maxmemory nothing is dropped"
    server.config_set("maxmemory", 1_000_000_000)
    found = ask("redis.eviction", on_it)
    assert (found.state, "allkeys-lru" in found.evidence) == ("error", True)
    server.config_set("maxmemory-policy", "noeviction")
    assert ask("redis.eviction", on_it).state == "ok"

    assert ask("redis.memory", on_it).state == "ok"
    info = server.info("memory")
    assert isinstance(info, dict)
    server.config_set("maxmemory", int(info["used_memory"] * 1.1))
    assert ask("redis.memory", on_it).state == "warning"
    server.config_set("maxmemory", 0)
    assert ask("redis.memory", on_it).state == "ok"


@shows("redis.suspended")
def test_suspended_workers(on_it: Flask, server: Redis, ask: Ask) -> None:
    assert ask("redis.suspended", on_it).state == "ok"
    suspend(server)
    found = ask("redis.suspended", on_it)
    assert (found.state, found.run) == ("error", "rq resume")


@shows("redis.prefix")
def test_workers_under_another_prefix(on_it: Flask, own_valkey: Valkey, ask: Ask) -> None:
    assert ask("redis.prefix", on_it).state == "ok"
    rq = [sys.executable, "-m", "rq.cli", "worker", "--url", own_valkey.url, "default"]

    @contextmanager
    def worker(prefix: str) -> Iterator[None]:
        process = subprocess.Popen(
            rq, env={**os.environ, "RQ_KEY_PREFIX": prefix}, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    with worker("shop"):
        wait_until(lambda: ask("redis.prefix", on_it).state == "warning", 60)
        assert "another prefix of keys: shop." in ask("redis.prefix", on_it).sentence
        with worker("rq"):
            wait_until(lambda: ask("redis.prefix", on_it).state == "ok", 60)


@shows("redis.latency")
def test_a_redis_that_needs_long(make_well: MakeApp, redis_url: str, ask: Ask) -> None:
    wait_until(lambda: ask("redis.latency").state == "ok", what="a near one to answer soon")
    where = urlsplit(redis_url)
    with far_away((where.hostname or "localhost", where.port or 6379)) as port:
        app = make_well(OPSJOBS_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        found = ask("redis.latency", app)
    assert (found.state, "ms to answer" in found.sentence) == ("warning", True)


@contextmanager
def far_away(server: tuple[str, int]) -> Iterator[int]:
    """A port that forwards to the server, and holds each request back for 70 ms, as a long way would."""
    never = threading.Event()

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(server) as there:
                answers = threading.Thread(target=self._answer, args=(there,), daemon=True)
                answers.start()
                while data := self.request.recv(65536):
                    never.wait(0.07)
                    there.sendall(data)

        def _answer(self, there: socket.socket) -> None:
            with suppress(OSError):
                while data := there.recv(65536):
                    self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as forwarder:
        forwarder.daemon_threads = True
        threading.Thread(target=forwarder.serve_forever, daemon=True).start()
        yield forwarder.server_address[1]
        forwarder.shutdown()


@shows("redis.version")
def test_an_old_redis(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has no server that is too old, so the check asks for more than there is."""
    assert ask("redis.version").state == "ok"
    monkeypatch.setattr(checks, "_OLDEST_VERSION", (99, 0))
    found = ask("redis.version")
    assert (found.state, found.evidence) == ("error", "It must be 99.0 or newer.")


@shows("redis.cluster")
@pytest.mark.processes
def test_a_cluster(make_well: MakeApp, ask: Ask) -> None:
    """Of one node, before and after it has the slots of all keys. The other checks say nothing of it."""
    assert ask("redis.cluster").state == "ok"
    bus = {"cluster-enabled": "yes", "cluster-port": f"{free_port()}"}
    with Valkey(settings=bus) as server, server.client() as client:
        app = make_well(OPSJOBS_REDIS_URL=server.url)
        for is_whole in (False, True):
            if is_whole:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            assert ask("redis.reachable", app).state == "ok"
            found = ask("redis.cluster", app)
            assert (found.state, found.evidence) == (
                "error",
                "RQ needs one server for all its keys.",
            )
            assert ask("redis.eviction", app).state == "skipped"
            assert ask("rq.serializer", app).state == "skipped"
