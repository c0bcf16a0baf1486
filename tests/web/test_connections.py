"""Pages use few connections of their own and run few searches at once,
so that no viewer can starve the host.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from flask_opsjobs.host import MOST_HEAVY, Host
from flask_opsjobs.jobs.models import Job
from tests.support.processes import Children
from tests.support.waiting import wait_until
from tests.test_query_plans import fill
from tests.web.every import good, reads, soup

SEARCH = "/ops/jobs/jobs?q=tag:invoice"
MANY = 50


@pytest.fixture
def locker(database_url: str) -> Iterator[Session]:
    """Holds the table of jobs, so that whoever reads it waits; until `locker.rollback()`."""
    engine = create_engine(database_url, poolclass=NullPool)
    with Session(engine) as session:
        yield session


def _lock(locker: Session) -> None:
    locker.execute(text("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE"))


def _connections(session: Session) -> int:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return int(session.scalar(text(count)) or 0)


def _ask(app: Flask, path: str, threads: ThreadPoolExecutor) -> Future[Any]:
    return threads.submit(lambda: app.test_client().get(path))


@pytest.mark.sessions
def test_fifty_searches_at_once_leave_the_host_its_pool_and_its_answers(
    app: Flask, host: Host, locker: Session, jobs: dict[str, Job]
) -> None:
    db = app.extensions["sqlalchemy"]

    @app.get("/own")
    def own() -> str:
        return str(db.session.execute(text("SELECT 'its own'")).scalar_one())

    # Else those that run are canceled, on a busy machine, before all others are refused.
    host.settings = replace(host.settings, page_timeout_seconds=60)
    assert app.test_client().get(SEARCH).status_code == 200
    taken: list[object] = []
    event.listen(host.engine.pool, "checkout", lambda *_: taken.append(1))
    _lock(locker)
    before = _connections(locker)
    with ThreadPoolExecutor(MANY) as threads:
        searches = [_ask(app, SEARCH, threads) for _ in range(MANY)]
        wait_until(lambda: sum(one.done() for one in searches) == MANY - MOST_HEAVY, 30)
        assert taken == []
        assert _connections(locker) <= before + host.settings.page_connections
        answer = app.test_client().get("/own")
        assert (answer.text, len(taken)) == ("its own", 1)
        busy = next(one for one in searches if one.done()).result()
        locker.rollback()
        answers = Counter(one.result().status_code for one in searches)
    assert answers == {503: MANY - MOST_HEAVY, 200: MOST_HEAVY}
    assert int(busy.headers["Retry-After"]) > 0
    assert "This process already runs 3 searches, exports or simulations" in busy.text
    assert app.test_client().get(SEARCH).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?q=error:timeout",
        "/jobs/live?q=error:timeout",
        "/jobs.csv",
        "/jobs.ndjson?q=tag:x",
        "/audit?q=vendor",
        "/audit/live?q=vendor",
        "/audit.csv",
        "/audit.ndjson",
        "/limiters/customer-api/simulate?count=5",
    ],
)
def test_each_of_them_is_one_of_the_few_and_makes_room_when_it_ends(
    path: str, client: FlaskClient, host: Host, jobs: dict[str, Job]
) -> None:
    for _ in range(MOST_HEAVY):
        assert host.heavy.enter()
    answer = client.get(f"/ops/jobs{path}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert soup(answer.text).find(id="dialog-page").h1.text == "Too many searches at once"
    assert ("<!doctype html>" in answer.text) == ("live" not in path)
    # A list that asks for no search is none of them.
    assert client.get("/ops/jobs/jobs?state=failed").status_code == 200
    assert client.get("/ops/jobs/audit").status_code == 200
    host.heavy.leave()
    for _ in range(3):
        assert client.get(f"/ops/jobs{path}").status_code == 200
    for _ in range(2):
        host.heavy.leave()
    assert sum(host.heavy.enter() for _ in range(MOST_HEAVY + 1)) == MOST_HEAVY


def test_what_cannot_be_read_makes_room_too(client: FlaskClient, host: Host) -> None:
    for _ in range(MOST_HEAVY + 1):
        assert client.get("/ops/jobs/jobs.csv?after=x").status_code == 422
        assert client.get("/ops/jobs/limiters/none/simulate").status_code == 404


@pytest.mark.parametrize("how", ["head", "replaced", "raises"])
def test_an_export_that_nobody_reads_makes_room(
    how: str, app: Flask, client: FlaskClient, host: Host, jobs: dict[str, Job]
) -> None:
    """The host's hook may answer with something else, or fail: then our response is never closed."""

    @app.after_request
    def meddle(response: Any) -> Any:
        if how == "raises":
            raise ZeroDivisionError
        return app.response_class("replaced") if how == "replaced" else response

    app.config["PROPAGATE_EXCEPTIONS"] = False
    ask = client.head if how == "head" else client.get
    for _ in range(MOST_HEAVY + 1):
        assert ask("/ops/jobs/jobs.csv").status_code == (500 if how == "raises" else 200)


def test_a_stream_is_one_of_the_few_until_its_reader_is_gone(
    live_url: str, host: Host, session: Session
) -> None:
    fill(session, finished=12_000)
    session.commit()
    place = urlsplit(live_url)
    readers = []
    for _ in range(MOST_HEAVY):
        reader = socket.create_connection((place.hostname, place.port or 80))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(b"GET /ops/jobs/jobs.ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in reader.recv(1000)  # the rest is left unread: the stream waits
        readers.append(reader)
    assert not host.heavy.enter()
    for reader in readers:
        reader.close()
    wait_until(lambda: host.heavy.enter() and (host.heavy.leave() or True), 20)
    for _ in range(MOST_HEAVY):
        assert wait_until(host.heavy.enter, 20)


@pytest.mark.slow
def test_one_connection_is_enough_for_every_page(
    make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    """A page that held one while it waits for another would stop all pages when each holds one."""
    app = make_app(OPSJOBS_PAGE_CONNECTIONS=1)
    for url, path in reads(jobs):
        assert app.test_client().get(path).status_code == good(url), path
    assert app.extensions["opsjobs"].pages.pool.checkedout() == 0


def test_pages_beyond_their_connections_are_told_so(
    make_app: Callable[..., Flask], locker: Session, jobs: dict[str, Job]
) -> None:
    # Else those that run are canceled, on a busy machine, before all others are refused.
    app = make_app(OPSJOBS_PAGE_CONNECTIONS=2, OPSJOBS_PAGE_TIMEOUT_SECONDS=60)
    assert app.test_client().get("/ops/jobs/jobs").status_code == 200
    _lock(locker)
    with ThreadPoolExecutor(10) as threads:
        asked = [_ask(app, "/ops/jobs/jobs", threads) for _ in range(10)]
        wait_until(lambda: sum(one.done() for one in asked) == 8, 30)
        busy = next(one for one in asked if one.done()).result()
        locker.rollback()
        answers = Counter(one.result().status_code for one in asked)
    assert answers == {503: 8, 200: 2}
    assert busy.headers["Retry-After"] == "2"
    assert "All 2 connections to the database that the pages of this process may use" in busy.text
    assert "OPSJOBS_PAGE_CONNECTIONS" in busy.text


@pytest.mark.parametrize("poolclass", ["QueuePool", "NullPool", "StaticPool"])
def test_what_the_host_does_at_connect_and_at_statements_is_done_for_pages(
    poolclass: str, make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    from sqlalchemy import pool

    options = {"poolclass": getattr(pool, poolclass), "connect_args": {"application_name": "shop"}}
    app = make_app(SQLALCHEMY_ENGINE_OPTIONS=options)
    host: Host = app.extensions["opsjobs"]

    @event.listens_for(host.engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.execute("SET search_path TO pg_catalog")
        connection.commit()

    said: set[str] = set()

    @event.listens_for(host.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        with cursor.connection.cursor() as other:
            shown = "SELECT current_setting('application_name') || current_setting('search_path')"
            said.add(other.execute(shown).fetchone()[0])

    assert app.test_client().get("/ops/jobs/jobs").status_code == 200
    assert said == {"shoppg_catalog"}
    assert host.pages.pool is not host.engine.pool
    assert host.pages.pool.checkedin() == 1  # type: ignore[attr-defined]


FORKING = """
import os
from sqlalchemy import text
from tests.support.host import create_app

app = create_app()
host = app.extensions["opsjobs"]

def ask(who):
    assert app.test_client().get("/ops/jobs/jobs").status_code == 200
    with host.pages.connect() as connection:
        print(who, connection.scalar(text("SELECT pg_backend_pid()")), flush=True)
    assert host.pages.pool.checkedout() == 0
    for _ in range(3):
        assert host.heavy.enter()

ask("parent")
for number in range(2):
    child = os.fork()
    if not child:
        ask("child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
for _ in range(3):
    host.heavy.leave()
ask("parent")
"""


def test_a_forked_process_has_connections_and_room_of_its_own(children: Children) -> None:
    """As under gunicorn with a preloaded app, one of whose pages was asked for before the fork."""
    child = children.python("-c", FORKING)
    assert child.wait(60) == 0
    said = [line.split() for line in child.log.splitlines() if line.startswith(("parent", "child"))]
    assert [who for who, _ in said] == ["parent", "child", "child", "parent"]
    pids = [pid for _, pid in said]
    assert pids[0] == pids[3]
    assert len(set(pids)) == 3
