"""A source that does not answer is said first on every page, and soon; nothing is claimed without it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core import guards
from flask_opsjobs.core.db import PatientConnection
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.lifeline.models import LoopRun
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.web.app import shell
from flask_opsjobs.workers.models import Worker
from tests.support.database import Databases
from tests.support.waiting import wait_until
from tests.web.every import soup
from tests.web.rows import ago, make_job, make_loops, make_one_of_each, make_worker

PAGES = (
    "",
    "/jobs",
    "/jobs/1",
    "/tasks",
    "/queues",
    "/queues/default",
    "/workers",
    "/cron",
    "/limiters",
    "/audit",
)


def _words(tree: Any) -> str:
    return " ".join(tree.text.split())


# --- Postgres


@pytest.fixture
def own_postgres() -> Iterator[TemporaryPostgres]:
    """A server that the test may freeze and stop."""
    with TemporaryPostgres() as server:
        yield server


@pytest.fixture
def its_client(own_postgres: TemporaryPostgres, make_app: Callable[..., Flask]) -> FlaskClient:
    """Asks an app on that server, which has answered before."""
    databases = Databases(make_url(own_postgres.url()))
    url = databases.migrated()
    app = make_app(SQLALCHEMY_DATABASE_URI=url.render_as_string(hide_password=False))
    client = app.test_client()
    assert client.get("/ops/jobs").status_code == 200
    return client


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For what pages have waited in vain, and how long each time; also connections that were made."""
    found: list[str] = []
    give_up, connect = PatientConnection._give_up, psycopg.connect

    def note_silence(connection: PatientConnection, gen: Any) -> Iterator[Any]:
        try:
            return (yield from give_up(connection, gen))
        except psycopg.OperationalError as error:
            found.append(str(error))
            raise

    def note_connect(*words: Any, **options: Any) -> Any:
        found.append(f"no connection within {options.get('connect_timeout')} s")
        return connect(*words, **options)

    monkeypatch.setattr(PatientConnection, "_give_up", note_silence)
    monkeypatch.setattr(psycopg, "connect", note_connect)
    return found


@pytest.mark.slow
@pytest.mark.lane
@pytest.mark.parametrize("how", ["freeze", "stop"])
def test_postgres_away_is_said_soon_and_costs_nothing_again(
    how: str,
    its_client: FlaskClient,
    own_postgres: TemporaryPostgres,
    waits: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The two seconds in which nobody asks again last as long as the test.
    monkeypatch.setattr(guards, "_ASKED_AGAIN_SECONDS", 3600)
    getattr(own_postgres, how)()
    first = its_client.get("/ops/jobs")
    assert len(waits) == 1
    # One second more than `OPSJOBS_PAGE_TIMEOUT_SECONDS`; one that has stopped is not waited for.
    assert how == "stop" or waits == ["no answer within 6 s"]
    assert first.status_code == 503
    said = _words(soup(first.text).select_one("#dialog-page"))
    assert "Postgres does not answer" in said
    assert "since" in said
    assert "it last answered this process at" in said
    assert "None is lost" in said
    host: Host = its_client.application.extensions["opsjobs"]
    for asked_again in ([], ["no connection within 2 s"]):
        for path in PAGES:
            answer = its_client.get(f"/ops/jobs{path}")
            assert answer.status_code == 503, path
            assert "Postgres does not answer" in answer.text
        # All but the one that may ask again know it already.
        assert waits[1:] == asked_again
        host.postgres._ask_again_at = 0
    shell._cache.clear()  # what was kept for a second
    page = soup(its_client.get("/ops/jobs/jobs").text)
    assert page.title.text.startswith("● 1 source away · Postgres does not answer · ")
    assert not page.select("#sources li")
    page = soup(its_client.get("/ops/jobs/jobs?q=queue:mail").text)
    assert page.select_one("form.find #q")["value"] == "queue:mail"
    page = soup(its_client.get("/ops/jobs/help").text)
    assert page.title.text.startswith("● 1 source away · Help · ")
    assert _words(page.select_one("#sources")).startswith(
        "Postgres does not answer. It is not known"
    )


def test_an_open_page_shows_that_postgres_is_away_in_place_of_old_facts(
    its_client: FlaskClient, own_postgres: TemporaryPostgres
) -> None:
    own_postgres.stop()
    part = soup(its_client.get("/ops/jobs/live").text).select_one("#part")
    assert part is not None
    assert "Postgres does not answer" in part.text


@pytest.mark.slow
def test_pages_are_back_when_postgres_is(
    its_client: FlaskClient, own_postgres: TemporaryPostgres
) -> None:
    own_postgres.freeze()
    assert its_client.get("/ops/jobs").status_code == 503
    own_postgres.thaw()
    until = time.monotonic() + 20
    while its_client.get("/ops/jobs").status_code != 200:
        assert time.monotonic() < until


# --- Redis


@pytest.fixture
def valkey(make_app: Callable[..., Flask]) -> Iterator[Valkey]:
    """A server that the test may freeze."""
    with Valkey() as server:
        yield server


@pytest.mark.parametrize("how", ["freeze", "kill"])
def test_redis_away_is_said_first_on_every_page(
    how: str,
    make_app: Callable[..., Flask],
    valkey: Valkey,
    redis_waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first page waits for it, for 0.2 s at a time; those of the next two seconds do not ask it."""
    # The two seconds last as long as the test.
    monkeypatch.setattr(guards, "_ASKED_AGAIN_SECONDS", 3600)
    app = make_app(OPSJOBS_REDIS_URL=valkey.url)
    host: Host = app.extensions["opsjobs"]
    with Session(host.engine) as session:
        jobs = make_one_of_each(session)
        # A worker of ours would take them from Postgres.
        session.execute(update(Worker).values(kind="plain"))
        session.commit()
        job_id = jobs["available"].id
    getattr(valkey, how)()
    for path in (
        "/jobs",
        f"/jobs/{job_id}",
        "/queues",
        "/queues/default",
        "/workers",
        "/cron",
        "/limiters",
        "/audit",
        "/help",
        "/jobs/live",
    ):
        tree = soup(app.test_client().get(f"/ops/jobs{path}").text)
        (first, *_) = tree.select("#sources li")
        said = _words(first)
        assert said.startswith("Redis does not answer."), path
        assert "2 due jobs wait. None is lost" in said
        assert re.search(r"Seen since \d\d:\d\d:\d\d", said), path
        main = tree.main or tree
        assert main.find(["h1", "section", "div"])["id"] in ("sources", "part"), path
        assert redis_waits == [0.2], path


def _carry_out(client: FlaskClient, path: str, **form: str) -> str:
    """Fill in a form, execute what its preview shows, and read the receipt: all without a Redis."""

    def send(path: str, form: dict[str, str]) -> str:
        answer = client.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 303, answer.text
        return answer.location

    page = soup(client.get(send(f"/ops/jobs{path}", form)).text)
    assert "Redis does not answer" in page.select_one("#sources").text
    (execute,) = page.select("form[action$='/execute']")
    fields = {str(field["name"]): str(field.get("value", "")) for field in execute.select("input")}
    done = send(str(execute["action"]), fields | {"reason": "the customer waits for it"})
    return _words(soup(client.get(done).text).main)


@pytest.mark.parametrize("how", ["freeze", "kill"])
def test_a_job_is_enqueued_and_edited_and_workers_are_stopped_while_redis_is_away(
    how: str,
    make_app: Callable[..., Flask],
    opsjobs: OpsJobs,
    valkey: Valkey,
    redis_waits: list[float],
) -> None:
    @opsjobs.task(queue="mail", enqueue_from_page=True)
    def send(account_id: int) -> None: ...

    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=valkey.url)
    client = app.test_client()
    with Session(app.extensions["opsjobs"].engine) as session:
        queued = make_job(session, "queued", task="send", queue="mail", args={"account_id": 1}).id
        workers = [make_worker(session, queues=["mail"]).name for _ in range(2)]
        session.commit()
        getattr(valkey, how)()
        said = [_carry_out(client, "/tasks/send/enqueue", **{"arg.account_id": "42"})]
        waiting = session.scalars(select(Job.id).where(Job.id != queued)).one()
        changes = {"queue": "slow", "priority": "1", "args": '{"account_id": 7}'}
        said += [_carry_out(client, f"/jobs/{job}/edit", **changes) for job in (waiting, queued)]
        said.append(_carry_out(client, f"/workers/{workers[0]}/drain"))
        said.append(_carry_out(client, f"/workers/{workers[1]}/stop", grace="5"))
        assert set(redis_waits) == {0.2}
        assert len(redis_waits) <= 15, "one a request"
        session.expire_all()
        for job in (session.get_one(Job, waiting), session.get_one(Job, queued)):
            assert (job.state, job.queue, job.priority) == ("available", "slow", 1)
            assert job.args == {"account_id": 7}
        asked = session.scalars(select(Worker.drain_requested_at).order_by(Worker.id)).all()
        assert None not in asked
    # Of what was in Redis before, and of what a worker should hear by it, it says how that goes on.
    assert ["done; Redis was not told: " in each for each in said] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_a_redis_that_is_back_is_not_said_for_long(
    make_app: Callable[..., Flask], valkey: Valkey
) -> None:
    client = make_app(OPSJOBS_REDIS_URL=valkey.url).test_client()
    valkey.freeze()
    assert "Redis does not answer" in client.get("/ops/jobs/jobs").text
    valkey.thaw()
    wait_until(lambda: "Redis does not answer" not in client.get("/ops/jobs/jobs").text, 15)


# --- loops


def test_silent_loops_are_said_on_every_page(session: Session, get: Callable[..., Any]) -> None:
    make_loops(session, last_at=ago(hours=3))
    session.commit()
    for path in ("/jobs", "/queues", "/workers", "/cron", "/limiters", "/audit"):
        said = _words(soup(get(path).text).select_one("#sources li"))
        assert said.startswith("No background loop is running."), path
        assert "Start flask opsjobs run" in said
        assert "Seen since" in said


def test_a_loop_that_is_silent_alone_says_what_stands_still(
    session: Session, get: Callable[..., Any]
) -> None:
    make_loops(session)
    session.execute(update(LoopRun).where(LoopRun.loop == "stage").values(last_at=ago(hours=3)))
    session.commit()
    said = _words(soup(get("/queues").text).select_one("#sources li"))
    assert said.startswith(
        "The loop stage is silent. Scheduled and retryable jobs do not become due."
    )


def test_a_loop_that_the_settings_turn_off_is_not_silent(
    session: Session, get: Callable[..., Any], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran until yesterday; since then `OPSJOBS_ADOPT` is off."""
    monkeypatch.setattr(host, "settings", replace(host.settings, adopt=False))
    make_loops(session)
    session.execute(update(LoopRun).where(LoopRun.loop == "adopt").values(last_at=ago(hours=20)))
    session.commit()
    assert soup(get("/queues").text).select("#sources li") == []
    for path in ("", "/lifeline"):
        assert "adopt is silent" not in get(path).text
    loops = [_words(row) for row in soup(get("/lifeline").text).select("th[scope=row]")]
    assert any("stage" in words for words in loops)
    assert not any("adopt" in words for words in loops)


def test_nothing_is_said_while_all_answer(session: Session, get: Callable[..., Any]) -> None:
    make_loops(session)
    session.commit()
    assert soup(get("/queues").text).select("#sources li") == []


def test_a_request_asks_once_however_long_it_takes(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_KEPT", timedelta())  # each request finds them too old
    found = []
    for _ in range(2):
        with app.test_request_context():
            found += [shell.read_sources(), shell.read_sources()]
    assert found[0] is found[1] is not found[2] is found[3]


def test_a_page_is_made_while_other_requests_drop_what_is_kept(
    session: Session, app: Flask
) -> None:
    """Each execution and each poll that finds a change drops it. They do so here all the time."""
    make_loops(session)
    session.commit()
    is_over = threading.Event()

    def drop() -> None:
        with app.app_context():
            while not is_over.is_set():
                shell.forget_sources()

    with ThreadPoolExecutor(1) as others:
        others.submit(drop)
        try:
            for _ in range(5):
                with app.test_request_context():
                    assert not shell.read_sources().wrong
        finally:
            is_over.set()
