"""The shop as it was at schema 4, in a folder of its own, with processes of the old and of the new code."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import psycopg
import pytest
from sqlalchemy import URL

from flask_opsjobs.testing.valkey import free_port
from tests.install.conftest import site  # noqa: F401 - a fixture
from tests.support.database import Databases
from tests.support.once import made_once
from tests.support.processes import Child
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

SOURCE = ROOT / "examples/flask_host_upgrade_source"
QUEUES = ("billing", "mail", "crm", "reports", "default")
# A year of the dump's rows stays, whenever the test runs: all times move on to today, and what was due soon
# is due. The audit is as it was written, since its hashes hold its times.
_MOVE = """
DO $$
DECLARE
    moved record;
    age interval := date_trunc('hour', now() - interval '10 min'
        - (SELECT max(applied_at) FROM opsjobs.schema_version));
BEGIN
    FOR moved IN SELECT c.table_name, string_agg(format('%1$I = %1$I + $1', c.column_name), ', ') AS columns
        FROM information_schema.columns c
        WHERE c.table_schema = 'opsjobs' AND c.data_type = 'timestamp with time zone'
            AND c.table_name NOT LIKE 'audit%' GROUP BY c.table_name
    LOOP
        EXECUTE format('UPDATE opsjobs.%I SET %s', moved.table_name, moved.columns) USING age;
    END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def old_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the old wheel installed in it."""
    (wheel,) = SOURCE.glob("*.whl")
    return made_once(tmp_path_factory, "old site", lambda to: zipfile.ZipFile(wheel).extractall(to))


class Person:
    """Asks the shop's pages as ops-demo, who is signed in, and notes what was not answered well."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self.failed: list[str] = []
        self.asks("/sign-in", name="ops-demo", password="operate")

    def asks(self, path: str, **form: str) -> str:
        """What a page answers, and where it leads; with a form, POST. Notes what is not 200."""
        data = urlencode(form).encode() if form else None
        request = Request(f"http://127.0.0.1:{self.port}{path}", data)
        try:
            with self._opener.open(request, timeout=30) as response:
                return str(response.url) + "\n" + response.read().decode()
        except OSError as error:
            said = error.read().decode()[:2000] if isinstance(error, HTTPError) else ""
            self.failed.append(f"{path}: {error} {said}")
            return ""


class Load(threading.Thread):
    """Buys something in the shop `every` so many seconds, until it is told to stop: two jobs each time.

    As long as `fails`, each fifth time is a webhook instead, to a server that is gone: a job that is tried
    four times, 2, 4 and 8 seconds apart.
    """

    def __init__(self, person: Person, every: float) -> None:
        super().__init__(daemon=True)
        self.person = person
        self.every = every
        self.enqueued: list[int] = []
        self.failing: list[int] = []
        self.fails = True
        self.slowest = 0.0
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(self.every):
            is_failing = self.fails and len(self.enqueued) % 5 == 4
            begun = time.monotonic()
            what = "webhook_to_nobody" if is_failing else "order"
            said = self.person.asks(f"/happen/{what}", why="a test")
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if said:
                self.enqueued.append(int(said.splitlines()[0].rpartition("job=")[2]))
                self.failing += self.enqueued[-1:] if is_failing else []

    def goes_on(self, number: int) -> None:
        """Return when so many more jobs were enqueued."""
        before = len(self.enqueued)
        wait_until(
            lambda: self.person.failed or len(self.enqueued) >= before + number, 120 + number
        )

    def stop(self) -> None:
        self._is_over.set()
        self.join()


@dataclass
class Shop:
    """The host's files, and its processes on one database and one Redis."""

    folder: Path
    sites: dict[str, Path]
    url: str
    env: dict[str, str]
    children: list[Child] = field(default_factory=list)

    def starts(self, code: str, *words: str) -> Child:
        """Start `flask words…` with the `old` or the `new` code.

        It is a fork of a process that has imported the wheel of this code from its folder, and nothing of
        the host.
        """
        log = self.folder / f"log {len(self.children)}"
        wheel = str(self.sites[code])
        env = {**self.env, "PYTHONPATH": f"{wheel}:{self.folder}"}
        command = [sys.executable, "-m", "flask", "--app", "flask_host", *words]
        self.children.append(Child(command, log, env, warm=wheel, folder=self.folder))
        return self.children[-1]

    def does(self, code: str, *words: str) -> str:
        """What a command prints; fails the test when it fails."""
        child = self.starts(code, *words)
        assert child.wait(120) == 0, child.log
        return child.log

    def serves(self, code: str) -> tuple[Child, int]:
        """A web process, and its port."""
        port = free_port()
        child = self.starts(code, "run", "--port", str(port), "--with-threads")
        child.wait_for("Running on", 60)
        return child, port

    def works(self, code: str) -> list[Child]:
        """The loops and two workers. What the one does last, the other does first."""
        both = (QUEUES, reversed(QUEUES))
        workers = [self.starts(code, "opsjobs", "worker", *queues) for queues in both]
        return [self.starts(code, "opsjobs", "run"), *workers]

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as session:
            return session.execute(statement).fetchall()


def restore(url: URL) -> None:
    """Fill a database with the dump."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(gzip.decompress((SOURCE / "dump.sql.gz").read_bytes()))
        session.execute(_MOVE)


@pytest.fixture
def shop(
    tmp_path: Path,
    site: Path,  # noqa: F811
    old_site: Path,
    databases: Databases,
    redis_url: str,
) -> Iterator[Shop]:
    """The shop with its old files and its old database; nothing runs yet."""
    shutil.copytree(SOURCE / "flask_host", tmp_path / "flask_host")
    database = databases.empty()
    restore(database)
    url = database.render_as_string(hide_password=False)
    env = {
        "FLASK_SQLALCHEMY_DATABASE_URI": url,
        "FLASK_OPSJOBS_REDIS_URL": redis_url,
        # A worker that was killed is rescued soon.
        "FLASK_OPSJOBS_HEARTBEAT_SECONDS": "1",
        "FLASK_OPSJOBS_LATE_SECONDS": "8",
        "FLASK_OPSJOBS_MISSING_SECONDS": "16",
    }
    shop = Shop(tmp_path, {"old": old_site, "new": site}, url, env)
    yield shop
    for child in shop.children:
        if child.exit_code is None:
            child.kill_all()
        print(f"--- {child} ended with {child.exit_code} and said:\n{child.log}")
    databases.drop(database)
