"""Stands between an app and its Postgres, counts round trips, and makes them longer.

`python -m tools.distance` prints of every page how often it waits for Postgres, and how long it takes with 2
ms of distance: the median of `--times` requests, on a database with one job of each state.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.web.app.shell import forget_sources
from tests.support.database import Databases
from tests.support.policies import AllowAll, ShowAll
from tests.web.every import reads
from tests.web.rows import make_one_of_each

# What psycopg sends after a pipeline, at times after its last answer: Postgres does not answer it.
_FLUSH = b"H\x00\x00\x00\x04"


@dataclass
class _Waits:
    """The number of the round trip for which a connection waits; None while it waits for none."""

    number: int | None = None


class Distance:
    """A proxy in front of Postgres. Connect to `url`.

    A round trip ends when Postgres waits for the client again. Each takes `seconds` longer. `trips` counts
    those that come one after the other: one that begins while others are under way counts with them.
    """

    def __init__(self, postgres: URL, seconds: float = 0) -> None:
        self.seconds = seconds
        self.trips = 0
        self._postgres = postgres
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        self.url = postgres.set(host="127.0.0.1", port=port, query=plain)
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (*self._open, self._listener):
            end.close()

    def cut(self) -> None:
        """End all connections, as a network does that fails."""
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:  # its other end is gone
                continue

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # shut down
                return
            server = self._connect()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            waits = _Waits()
            for target, ends in ((self._ask, (client, server)), (self._answer, (server, client))):
                self._threads.append(threading.Thread(target=target, args=(waits, *ends)))
                self._threads[-1].start()

    def _connect(self) -> socket.socket:
        folder = self._postgres.query.get("host")
        if folder is None:
            return socket.create_connection(
                (self._postgres.host or "", self._postgres.port or 5432)
            )
        made = socket.socket(socket.AF_UNIX)
        made.connect(
            f"{folder}/.s.PGSQL.{self._postgres.port or self._postgres.query.get('port', 5432)}"
        )
        return made

    def _ask(self, waits: _Waits, client: socket.socket, server: socket.socket) -> None:
        while sent := _receive(client):
            if waits.number is None and sent != _FLUSH:
                waits.number = self.trips + 1
                time.sleep(self.seconds)
            _send(server, sent)
        _end(server)

    def _answer(self, waits: _Waits, server: socket.socket, client: socket.socket) -> None:
        unread, ended = b"", []
        while sent := _receive(server):
            unread += sent
            # Each message is a letter, its length, and what it says.
            while len(unread) > 4 and len(unread) > (size := int.from_bytes(unread[1:5], "big")):
                message, unread = unread[: size + 1], unread[size + 1 :]
                if message[:1] == b"C":  # a statement has ended
                    ended.append(message[5:-1])
                if message[:1] == b"Z":  # Postgres waits for the client
                    number, waits.number = waits.number, None
                    # No page waits for the answer to a ROLLBACK.
                    if number is not None and ended != [b"ROLLBACK"]:
                        self.trips = max(self.trips, number)
                    ended = []
            _send(client, sent)
        _end(client)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


def _send(end: socket.socket, what: bytes) -> None:
    try:
        end.sendall(what)
    except OSError:
        return


def _end(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def main() -> int:
    """Measure every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ms", type=float, default=2)
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    with TemporaryPostgres() as postgres, Valkey() as valkey:
        databases = Databases(postgres.url())
        try:
            with Distance(databases.migrated(), chosen.ms / 1000) as distance:
                _measure(distance, valkey.url, chosen.times)
        finally:
            databases.close()
    return 0


def _measure(distance: Distance, redis_url: str, times: int) -> None:
    app = Flask("far")
    app.config.update(
        SECRET_KEY="only for figures",
        OPSJOBS_REDIS_URL=redis_url,
        SQLALCHEMY_DATABASE_URI=distance.url.render_as_string(hide_password=False),
        OPSJOBS_DISPATCH=False,
    )
    SQLAlchemy(app)
    OpsJobs(app, access=AllowAll(), display=ShowAll())
    host = app.extensions["opsjobs"]
    with Session(host.engine, expire_on_commit=False) as session:
        jobs = make_one_of_each(session)
    client = app.test_client()
    for url, path in reads(jobs):
        took = []
        for _ in range(times + 1):
            with app.app_context():
                forget_sources()
            distance.trips, began = 0, time.perf_counter()
            client.get(path)
            took.append(time.perf_counter() - began)
        print(
            f"{distance.trips:3} {statistics.median(took[1:]) * 1000:6.1f} ms  {url.endpoint}  {path}"
        )
    host.pages.dispose()
    host.engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
