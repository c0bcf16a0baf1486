"""A poll costs one statement while nothing changes, and shows what changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.changes import Changes, find_changes
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.web.app import polls
from flask_opsjobs.web.app.shell import forget_sources
from tests.support.clock import Clock
from tests.support.engine import Bench
from tests.support.polling import OpenPage
from tests.support.waiting import wait_until
from tests.web.conftest import Access
from tests.web.every import reads, soup
from tests.web.rows import make_incident, make_worker

OVERVIEW = "/ops/jobs/live"
LIMITER = "limiter/customer-api"
RAISED = Outcome("raised", error="ValueError: it does not work")
# Longer than Postgres holds numbers back, and shorter than a fragment holds.
QUIET = {"seconds": 12}


@pytest.fixture
def quiet(jobs: dict[str, Job], session: Session, page_clock: Clock) -> Clock:
    """Everything is written and counted, and no worker and no loop becomes late soon."""
    beat(session, page_clock.now + timedelta(hours=1))
    loops = "UPDATE opsjobs.loop_runs SET last_at = :now, every_seconds = 3600"
    session.execute(text(loops), {"now": page_clock.now})
    commit(session)
    return page_clock


def beat(session: Session, now: datetime) -> None:
    """Each live worker tells that it lives."""
    statement = (
        "UPDATE opsjobs.workers SET heartbeat_no = heartbeat_no + 1, heartbeat_at = :now"
        " WHERE ended_at IS NULL"
    )
    session.execute(text(statement), {"now": now})


def commit(session: Session) -> None:
    """Commit, and let Postgres count at once what it might keep for ten seconds."""
    session.execute(text("SELECT pg_stat_force_next_flush()"))
    session.commit()


@pytest.fixture
def open_page(app: Flask, quiet: Clock) -> Callable[..., OpenPage]:
    """Opens a page, and polls until a poll costs one statement.

    A session that filled the tables may tell Postgres its numbers in the middle.
    """

    def open_page(path: str = OVERVIEW, app: Flask = app) -> OpenPage:
        page = OpenPage(app.test_client(), app.extensions["opsjobs"], path)
        page.poll()
        for _ in range(4):
            quiet.forward(**QUIET)
            if page.is_cheap:
                return page
        pytest.fail(f"each poll of {path} makes it anew")

    return open_page


@pytest.mark.slow
def test_an_unchanged_poll_of_each_page_costs_one_statement(
    jobs: dict[str, Job], open_page: Callable[..., OpenPage]
) -> None:
    paths = [path for url, path in reads(jobs) if url.kind == "fragment" and "suggest" not in path]
    assert len(paths) >= 20
    for path in paths:
        open_page(path)


def test_a_change_is_shown_by_the_next_poll(
    jobs: dict[str, Job], session: Session, open_page: Callable[..., OpenPage]
) -> None:
    page = open_page(f"/ops/jobs/jobs/{jobs['started'].id}/live")
    session.execute(text("UPDATE opsjobs.attempts SET progress_done = 8 WHERE outcome IS NULL"))
    commit(session)
    assert "8 of 9" in page.poll().text


def test_what_follows_a_change_is_shown_although_postgres_has_not_counted_it(
    jobs: dict[str, Job], session: Session, open_page: Callable[..., OpenPage], quiet: Clock
) -> None:
    page = open_page(f"/ops/jobs/jobs/{jobs['started'].id}/live")
    progress = text("UPDATE opsjobs.attempts SET progress_done = :done WHERE outcome IS NULL")
    session.execute(progress, {"done": 7})
    commit(session)
    assert "7 of 9" in page.poll().text
    session.execute(progress, {"done": 8})
    session.commit()
    quiet.forward(seconds=5)
    assert "8 of 9" in page.poll().text


def test_a_change_is_in_the_badges_although_another_page_has_just_read_them(
    session: Session, client: FlaskClient, open_page: Callable[..., OpenPage]
) -> None:
    page = open_page()
    client.get("/ops/jobs/queues")
    make_incident(session, subject="loop/fold", severity="critical")
    commit(session)
    assert "1 critical" in page.poll().text


@pytest.mark.processes
def test_a_redis_that_goes_away_is_shown_by_the_next_poll(
    make_app: Callable[..., Flask], open_page: Callable[..., OpenPage]
) -> None:
    with Valkey() as server:
        page = open_page(app=make_app(OPSJOBS_REDIS_URL=server.url))
        server.kill()
        # That it answered is kept for two seconds.
        wait_until(lambda: "Redis does not answer" in page.poll().text, 10)


def test_what_is_not_counted_is_shown_when_the_fragment_no_longer_holds(
    jobs: dict[str, Job],
    session: Session,
    open_page: Callable[..., OpenPage],
    quiet: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = open_page(f"/ops/jobs/jobs/{jobs['started'].id}/live")
    counted = []

    def never_counted(*asked: Any) -> Changes:
        found = find_changes(*asked, now=quiet.now)
        counted.append(found.changed_rows)
        return Changes(found.now, counted[0], found.state)

    monkeypatch.setattr(polls, "find_changes", never_counted)
    assert page.is_cheap
    session.execute(text("UPDATE opsjobs.attempts SET progress_done = 8 WHERE outcome IS NULL"))
    commit(session)
    assert page.is_cheap
    quiet.forward(seconds=polls.MOST_SECONDS)
    assert "8 of 9" in page.poll().text


def test_a_worker_that_becomes_late_is_shown_by_the_next_poll(
    open_page: Callable[..., OpenPage], quiet: Clock, host: Host, session: Session
) -> None:
    on_time = timedelta(seconds=host.settings.late_seconds)
    beat(session, quiet.now - on_time + timedelta(seconds=20))
    commit(session)
    page = open_page("/ops/jobs/workers/live")
    quiet.forward(seconds=10)  # while the fragment still holds
    assert soup(page.poll().text).select("[data-is=late]")


def test_what_the_reader_may_do_and_see_is_asked_by_each_poll(
    jobs: dict[str, Job], access: Access, open_page: Callable[..., OpenPage]
) -> None:
    subject = f"job/{jobs['failed'].id}"
    page = open_page(f"/ops/jobs/jobs/{jobs['failed'].id}/live")
    access.denied.add(("job.retry", subject))
    assert page.poll().status_code == 200
    access.held.discard("payload.view")
    assert page.poll().status_code == 200
    access.held.discard("jobs.view")
    assert page.client.get(page.path, headers={"If-None-Match": page.tag}).status_code == 403


def test_a_tag_is_of_its_reader_its_address_and_its_policy(
    open_page: Callable[..., OpenPage], access: Access, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, other = open_page(), open_page("/ops/jobs/workers/live")
    page.path = f"{OVERVIEW}?window=day"
    assert page.poll().status_code == 200
    page.path, page.tag = OVERVIEW, other.tag
    assert page.poll().status_code == 200
    page = open_page()
    access.actor = "m.weber"
    page.poll()
    assert page.statements > 1
    page = open_page()

    class Other(type(host.display)):
        """Another class of policy."""

    monkeypatch.setattr(host, "display", Other())
    page.poll()
    assert page.statements > 1


def test_a_refresh_that_a_person_asks_for_looks_at_everything(
    open_page: Callable[..., OpenPage],
) -> None:
    page = open_page()
    page.poll(**{"Cache-Control": "no-cache"})
    assert page.statements > 1


@pytest.mark.parametrize(
    "tag",
    [
        "x",
        "*",
        '"a.b.c.d.e"',
        '"..1.1.1"',
        'W/"x"',
        '"a.b.-1.2.3"',
        '"a.b.².2.3"',
        f'"a.b.{"9" * 5000}.2.3"',
    ],
)
def test_a_tag_that_is_none_of_ours_gets_the_fragment(client: FlaskClient, tag: str) -> None:
    answer = client.get(OVERVIEW, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert 'id="part"' in answer.text


@pytest.mark.slow
def test_each_transition_changes_what_the_next_poll_of_an_open_page_answers(
    client: FlaskClient,
    host: Host,
    session: Session,
    bench: Bench,
    make_bench: Callable[[], Bench],
    record_job: Callable[..., int],
    opsjobs: OpsJobs,
    quiet: Clock,
) -> None:
    """The clock of pages stands still meanwhile, so no page is made anew because of its age."""
    operator, job, other = Operator(host), record_job(), record_job(max_attempts=1)
    about_job = [f"job/{job}"]
    why: dict[str, Any] = {"actor": "tester", "reason": "because it is a test"}
    new: list[Bench] = []
    paths = {
        "overview": "",
        "jobs": "/jobs",
        "job": f"/jobs/{job}",
        "other": f"/jobs/{other}",
        "queues": "/queues",
        "queue": "/queues/default",
        "tasks": "/tasks",
        "task": "/tasks/note",
        "workers": "/workers",
        "limiters": "/limiters",
        "limiter": "/limiters/customer-api",
        "forensics": f"/forensics/job/{job}",
        "lifeline": "/lifeline",
        "audit": "/audit",
    }
    live = {
        name: soup(client.get(f"/ops/jobs{path}").text).select_one("#live")["hx-get"]
        for name, path in paths.items()
    }
    pages = {name: OpenPage(client, host, str(path)) for name, path in live.items()}

    def act(action: str, targets: list[str], **params: Any) -> Callable[[], object]:
        return lambda: operator.run(action, targets, params=params, **why)

    def end(job_id: int, dispatch_no: int, outcome: Outcome) -> Callable[[], object]:
        return lambda: bench.record(job_id, dispatch_no, outcome)

    def start(job_id: int, dispatch_no: int) -> None:
        bench.dispatch_all()
        assert isinstance(bench.claim(job_id, dispatch_no), Claimed)

    def begin() -> None:
        new.append(make_bench())
        beat(session, quiet.now + timedelta(hours=1))
        commit(session)

    def die() -> None:
        """Its heartbeats stop, and are late."""
        late = "UPDATE opsjobs.workers SET heartbeat_at = heartbeat_at - interval '1 day' WHERE id = %s"
        bench.connection.execute(late, [new[0].worker_id])

    steps: list[tuple[str, Callable[[], object], str]] = [
        ("enqueue", record_job, "overview jobs queues queue"),
        (
            "edit",
            act("job.edit", about_job, priority=1, queue="default", args={}),
            "job forensics audit",
        ),
        ("note", act("note.add", about_job), "job forensics audit"),
        ("start", lambda: start(job, 1), "job jobs queues queue workers forensics"),
        ("fail", end(job, 1, RAISED), "overview job jobs queues queue workers forensics"),
        ("retry", act("job.retry", about_job), "job jobs queues queue forensics audit"),
        ("start again", lambda: start(job, 2), "job jobs queues queue workers forensics"),
        ("finish", end(job, 2, Outcome("returned")), "job jobs queues queue workers forensics"),
        ("fail for good", end(other, 1, RAISED), "overview other jobs queues queue"),
        (
            "retry what failed",
            act("job.retry", [f"job/{other}"]),
            "overview other jobs queue audit",
        ),
        ("cancel", act("job.cancel", [f"job/{other}"]), "overview other jobs queue audit"),
        ("pause a queue", act("queue.pause", ["queue/default"]), "overview queues queue audit"),
        ("pause a task", act("task.pause", ["task/note"]), "overview tasks task audit"),
        ("cool down", act("limiter.cooldown", [LIMITER], minutes=9), "limiters limiter audit"),
        ("a worker starts", begin, "workers queues queue lifeline"),
        ("a worker dies", die, "workers queues queue lifeline overview"),
    ]
    for step, transition, shown_on in steps:
        shown = {name: pages[name] for name in shown_on.split()}
        settle(shown, quiet)
        transition()
        # Their sessions tell Postgres at once what they changed, instead of within ten seconds.
        bench.connection.execute("SELECT pg_stat_force_next_flush()")
        host.spare.close()
        wait_until_shown(shown, step)


def settle(pages: Mapping[str, OpenPage], clock: Clock) -> None:
    """Let time pass until each poll costs one statement."""
    costly: list[str] = []
    for _ in range(9):
        clock.forward(**QUIET)
        costly = [name for name, page in pages.items() if not page.is_cheap]
        if not costly:
            return
    pytest.fail(f"although nothing changes, each poll makes {', '.join(costly)}")


def wait_until_shown(pages: Mapping[str, OpenPage], step: str) -> None:
    """Poll until each page has had an answer that differs."""
    left = dict(pages)

    def is_shown() -> bool:
        for name in [name for name, page in left.items() if page.poll().status_code == 200]:
            del left[name]
        return not left

    wait_until(is_shown, 15, what=lambda: f"{', '.join(left)} to show: {step}")


@pytest.mark.slow
def test_an_open_overview_costs_little_while_workers_and_loops_only_live(
    client: FlaskClient, host: Host, session: Session, page_clock: Clock
) -> None:
    make_worker(session, heartbeat_at=page_clock.now)
    session.commit()
    runners = [Runner(loop, host, "one") for loop in LOOPS if loop.name != "escalate"]
    page = OpenPage(client, host, OVERVIEW)
    with closing(connect_apart(host.engine)) as connection:

        def poll() -> tuple[int, int]:
            """Let five seconds pass, and poll. The statements and the bytes of it."""
            for _ in range(2):  # a loop that waits longer than three intervals has stood still
                beat(session, page_clock.forward(seconds=2.5))
                commit(session)
                for runner in runners:
                    runner.run_once(connection, page_clock.now)
            connection.execute("SELECT pg_stat_force_next_flush()")
            with client.application.app_context():
                forget_sources()  # they are older than a second
            sent = len(page.poll().data)
            return page.statements, sent

        for _ in range(12):
            poll()
        made = [poll() for _ in range(21)]  # three times as long as a fragment holds
    assert sum(statements for statements, _ in made) * 12 / 21 <= 60
    assert sum(sent for _, sent in made) * 12 / 21 <= 30_000
