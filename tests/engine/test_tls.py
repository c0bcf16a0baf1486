"""Redis over TLS: a worker and a page reach it by `rediss://`; a certificate of somebody else is refused."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask
from redis import Redis
from rq import Queue

from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.errors import EngineUnavailable
from tests.engine.site import enqueue, state_of
from tests.support.host import add
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
_SELF_SIGNED = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 with its key in one file, signed by itself."""
    key, made = tmp_path / "key.pem", tmp_path / "made.pem"
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made))
    subprocess.run(["openssl", *_SELF_SIGNED.split(), *names], check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + made.read_text())
    return both


@pytest.fixture
def tls_url(redis_url: str, certificate: Path) -> Iterator[str]:
    """The URL of the test's Redis behind a proxy that speaks TLS."""
    redis = urlsplit(redis_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(redis.hostname, redis.port)
        ways = (pass_on(reader, to_redis), pass_on(from_redis, writer))
        try:
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            to_redis.transport.abort()
            writer.transport.abort()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0, ssl=context))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"rediss://127.0.0.1:{port}{redis.path}"

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    thread.join()
    loop.close()


def test_a_worker_and_a_page_reach_redis_over_tls(
    site: Flask, children: Children, redis_client: Redis, tls_url: str, certificate: Path
) -> None:
    trusting = f"{tls_url}?ssl_ca_certs={certificate}"
    assert RedisConnections(site, trusting).wire("default", quick=True).reader.ping()
    managed = enqueue(add, a=1, b=1)
    plain = Queue("default", connection=redis_client).enqueue("os.getpid", result_ttl=60)
    worker = children.flask("opsjobs", "worker", "default", OPSJOBS_REDIS_URL=trusting)
    wait_until(lambda: state_of(managed) == "finished", 30, what="the managed job to finish")
    wait_until(lambda: plain.get_status(refresh=True) == "finished", 30, what="the plain job")
    assert worker.terminate() == 0


def test_a_certificate_that_nobody_trusts_is_refused(site: Flask, tls_url: str) -> None:
    with pytest.raises(EngineUnavailable, match="certificate verify failed"):
        RedisConnections(site, tls_url).require_answer("default")
