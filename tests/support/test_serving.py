"""A served app has answered all when the block ends."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

from flask import Flask

from tests.support.serving import served
from tests.support.waiting import wait_until


def test_a_request_whose_client_went_away_has_ended_with_the_block() -> None:
    app, ended = Flask(__name__), list[bool]()
    has_begun, block_has_ended = threading.Event(), threading.Event()

    @app.get("/")
    def answer() -> str:
        has_begun.set()
        wait_until(lambda: not _listens(address), 30, every=0.001)
        ended.append(block_has_ended.wait(0.2))
        return ""

    with served(app) as root:
        address = (urlsplit(root).hostname, urlsplit(root).port)
        with socket.create_connection(address) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert has_begun.wait(30)
    block_has_ended.set()
    assert ended == [False]


def _listens(address: tuple[str | None, int | None]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0
