"""The charts of a queue and of a task: a step leads to its jobs, and operations and decisions are marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.models import RollupPosition
from tests.support.clock import Clock
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_deploy, make_event, make_job, make_loops, make_operation

Get = Callable[..., Any]
# Clocks in Berlin show the hour before this moment twice.
BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)
QUARTER, INSTANT = timedelta(minutes=15), timedelta(microseconds=1)
# A job enqueued and ended at each edge of steps, and just before it.
EDGES = [
    edge - before
    for edge in (BACK + number * QUARTER for number in range(-3, 5))
    for before in (timedelta(), INSTANT)
]


@pytest.fixture
def count(host: Host, clock: Clock) -> Iterator[Callable[[], None]]:
    """Lets the loop count up to the time of the clock."""
    connection = connect_apart(host.engine)
    runner = Runner(roll_up.LOOP, host, "one")

    def count() -> None:
        while runner.run_once(connection, clock.now):
            pass

    yield count
    connection.close()


@pytest.fixture
def counted(session: Session, clock: Clock, count: Callable[[], None]) -> None:
    """Jobs around the change of the clocks, which the loop has counted two hours later."""
    clock.now = BACK + timedelta(hours=2, seconds=20)
    make_loops(session)
    # With this one counting begins.
    make_job(session, "finished", task="early", queue="early", **_at(BACK - timedelta(hours=21)))
    for number, moment in enumerate(EDGES):
        state = ("finished", "failed", "canceled")[number % 3]
        for task, queue in (("send", "mail"), ("other", "other")):
            make_job(session, state, task=task, queue=queue, **_at(moment))
    # As the statements that enqueue and end jobs do it.
    session.execute(
        text(
            "INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)"
            " SELECT created_at, queue, 1, task FROM opsjobs.jobs"
        )
    )
    moved = "WITH moved AS (SELECT *, NULL::bigint AS peak_kb FROM opsjobs.jobs) "
    session.execute(text(moved + sql.load("append_task_ends").replace(":", r"\:")))
    session.commit()
    count()


def _at(moment: datetime) -> dict[str, Any]:
    """The times of a job that was enqueued and ended at once."""
    return dict.fromkeys(("created_at", "due_at", "started_at", "ended_at"), moment)


def _links(get: Get, path: str) -> list[Any]:
    return list(soup(get(path).text).select(".chart .bar-link"))


def _number(link: Any) -> int:
    """How many jobs a step says that it has."""
    found = re.search(r": ([\d,]+) \w+$", link.text.strip())
    assert found is not None, link.text
    return int(found[1].replace(",", ""))


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("path", "number", "zone"),
    [
        ("?window=day", 1 + 2 * 16, "UTC"),
        ("/queues/mail?window=day", 16 + 16 + 5, "Asia/Kathmandu"),
        ("/tasks/send", 16 + 5, "Europe/Berlin"),
        *(
            ("/tasks/send?window=month", 16 + 5, zone)
            for zone in ("UTC", "Europe/Berlin", "Asia/Kathmandu")
        ),
        *(
            pytest.param(path, number, zone, marks=pytest.mark.variants)
            for path, number, zones in (
                ("?window=day", 1 + 2 * 16, ("Europe/Berlin", "Asia/Kathmandu")),
                ("/queues/mail?window=day", 16 + 16 + 5, ("UTC", "Europe/Berlin")),
                ("/tasks/send", 16 + 5, ("UTC", "Asia/Kathmandu")),
            )
            for zone in zones
        ),
    ],
)
def test_a_step_has_as_many_jobs_as_its_search_finds(
    get: Get, client: FlaskClient, path: str, number: int, zone: str
) -> None:
    links = _links(get, path)
    # The overview links only the highest steps.
    assert 12 < sum(_number(link) for link in links) <= number
    assert path.startswith("?") or sum(_number(link) for link in links) == number
    for link in links:
        found = soup(client.get(f"{link['href']}&zone={zone}&limit=100").text)
        assert len(found.select("tr[data-row]")) == _number(link), link["href"]


@pytest.mark.usefixtures("counted")
def test_a_plain_job_is_not_counted_as_enqueued_and_not_found(
    get: Get, client: FlaskClient, session: Session
) -> None:
    make_job(session, "finished", queue="mail", origin="rq", **_at(BACK))
    session.commit()
    (link,) = (
        link
        for link in _links(get, "/queues/mail?window=day")
        if f"created={BACK:%Y-%m-%dT%H:%MZ}" in link["href"]
    )
    assert len(soup(client.get(link["href"]).text).select("tr[data-row]")) == _number(link)


@pytest.mark.usefixtures("counted")
def test_a_retried_job_counts_at_each_end_and_is_found_at_its_last(
    get: Get, client: FlaskClient, session: Session, clock: Clock
) -> None:
    """The page says so, since a step then has more ends than its search finds jobs."""
    retried = text("UPDATE opsjobs.jobs SET ended_at = :now WHERE task = 'send' AND ended_at = :at")
    session.execute(retried, {"now": clock.now, "at": BACK})
    session.commit()
    (link,) = (
        link
        for link in _links(get, "/tasks/send")
        if f"ended:{BACK:%Y-%m-%dT%H:%MZ}" in link["href"]
    )
    assert len(soup(client.get(link["href"]).text).select("tr[data-row]")) == _number(link) - 1
    legend = soup(get("/tasks/send").text).select_one(".push").text
    assert "a retried job is found at its last end" in legend


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
def test_a_minute_is_a_step_of_an_hour(get: Get, client: FlaskClient, clock: Clock) -> None:
    clock.now = BACK + timedelta(minutes=40)
    for path, number in (
        ("/queues/mail?window=hour", 8 + 8 + 3),
        ("/tasks/send?window=hour", 8 + 3),
    ):
        links = _links(get, path)
        assert len(links) == number
        for link in links:
            found = soup(client.get(link["href"]).text)
            assert len(found.select("tr[data-row]")) == _number(link) == 1, link["href"]


@pytest.mark.usefixtures("counted")
def test_the_table_has_every_link_and_tab_twelve_of_a_chart(get: Get) -> None:
    page = soup(get("/tasks/send").text)
    in_table = {link["href"] for link in page.select("#numbers-table td a")}
    assert in_table == {link["href"] for link in page.select(".chart .bar-link")}
    assert len(in_table) == 9 + 3
    for chart in page.select(".chart"):
        links = chart.select(".bar-link")
        stops = [link for link in links if "tabindex" not in link.attrs]
        assert bool(stops) == bool(links)
        assert len(stops) <= 12
        assert {link["aria-hidden"] for link in links if link not in stops} <= {"true"}


@pytest.mark.usefixtures("counted")
def test_a_window_is_compared_with_the_one_before(
    get: Get, clock: Clock, count: Callable[[], None]
) -> None:
    clock.now += timedelta(hours=25, minutes=30)
    count()
    for path in ("/queues/mail?window=day", "/tasks/send"):
        page = soup(get(path).text)
        (ended,) = [one for one in page.select(".chart") if one.h3.text in ("Ended", "Throughput")]
        says = " ".join(ended.select_one(".now").text.split())
        assert re.search(r"\b0 over the last day, 16 in the day before\.", says), says
        assert says.partition(". ")[2] in ended.desc.text
        assert ended.select_one(".trace.ghost") is not None
        heads = [head.text for head in page.select("#numbers-table th[scope=col]")]
        assert {"Ended", "Ended before", "Wait p95 before"} <= set(heads)


@pytest.mark.usefixtures("counted")
def test_who_may_not_see_jobs_gets_numbers_without_links(
    get: Get, access: Access, session: Session, clock: Clock
) -> None:
    """Also when the same charts are kept that somebody else has just seen, and beside a deploy."""
    make_deploy(session, "2026.11.3", at=clock.now - timedelta(minutes=30))
    session.commit()
    paths = ("/queues/mail?window=day", "/tasks/send")
    for path in paths:
        assert soup(get(path).text).select(".chart a")
    access.held -= {"jobs.view", "audit.view", "operations.view"}
    for path in paths:
        page = soup(get(path).text)
        assert page.select(".chart a, #numbers-table a") == []
        assert page.select(".chart .deploy")
        assert {svg["role"] for svg in page.select(".chart svg")} == {"img"}
        assert len(page.select("#numbers-table tbody tr")) == 9


def test_deploys_operations_and_pauses_are_marked(
    get: Get, session: Session, access: Access
) -> None:
    make_loops(session)
    make_job(session, queue="mail", task="send")
    make_deploy(session, "2026.11.3", at=ago(minutes=30))
    mine, other = ({"queue": "mail"}, {"queue": "other", "state": "failed"})
    started = {"started_at": ago(minutes=20), "handled_at": ago(minutes=10)}
    (own, _) = (make_operation(session, query=query, **started) for query in (mine, other))
    for action, hours in (("queue.pause", 3), ("queue.resume", 2)):
        make_event(session, action=action, at=ago(hours=hours))
    pause = {"action": "queue.pause", "at": ago(minutes=25), "reason": "<vendor> is away"}
    resume = (
        make_event(session, **pause),
        make_event(session, action="queue.resume", at=ago(minutes=15)),
    )
    make_event(session, outcome="refused", code="wrong_state", at=ago(minutes=5))
    session.commit()
    page = soup(get("/queues/mail").text)
    first = page.select_one(".chart")
    assert [link["href"] for link in first.select(".act")] == [
        f"/ops/jobs/operations/{own.id}",
        *(f"/ops/jobs/audit/{sequence}" for sequence in reversed(resume)),
    ]
    titles = [act.title.text for act in first.select(".act")]
    assert titles[0] == f"operation {own.id}: Retry 640 jobs, by l.brandt"
    assert titles[2] == "queue.pause by ops-demo: <vendor> is away"
    lengths = [_length(act) for act in first.select(".act")]
    assert lengths == [pytest.approx(256 / 6, abs=0.2), 4, pytest.approx(256 / 6, abs=0.2)]
    assert [link["href"] for link in first.select(".to-deploy")] == [
        "/ops/jobs/jobs?deploy=2026.11.3"
    ]
    # The marks of one chart are enough stops for Tab, and the list has all of them.
    assert all("tabindex" not in act.attrs for act in first.select(".act, .to-deploy"))
    for chart in page.select(".chart")[1:]:
        assert all(act["tabindex"] == "-1" for act in chart.select(".act, .to-deploy"))
    marks = [" ".join(mark.a.text.split()) for mark in page.select(".marks li")]
    assert marks == [titles[1], titles[0], titles[2], "deploy 2026.11.3"]
    access.held -= {"audit.view", "operations.view"}
    assert soup(get("/queues/mail").text).select(".act") == []


def test_the_overview_marks_decisions_about_any_queue_task_or_worker(
    get: Get, session: Session, access: Access
) -> None:
    make_loops(session)
    position = session.get_one(RollupPosition, 1)
    position.counted_from, position.counted_until = ago(hours=2), ago(seconds=0)
    paused = {
        "action": "queue.pause",
        "subject": "queue/mail",
        "targets": ("queue/mail", "queue/b"),
    }
    make_event(session, **paused, at=ago(minutes=30), reason="<vendor> is away")
    for name, minutes in (("mail", 20), ("b", 10)):
        target = f"queue/{name}"
        resumed = {"action": "queue.resume", "subject": target, "targets": (target,)}
        make_event(session, **resumed, at=ago(minutes=minutes))
    for action, target in (("task.pause", "task/send"), ("worker.drain", "worker/web-1")):
        about = {"action": action, "subject": target, "targets": (target,)}
        make_event(session, **about, at=ago(minutes=5))
    make_event(session, action="job.retry", subject="job/1", targets=("job/1",))
    # It still lasts, and nothing in the charts changed with it.
    make_event(
        session, action="queue.pause", subject="queue/c", targets=("queue/c",), at=ago(hours=1.5)
    )
    session.commit()
    first = soup(get("").text).select_one(".chart")
    acts = {act.title.text.partition(" by ")[0]: act for act in first.select(".act")}
    assert list(acts) == [
        "worker.drain worker/web-1",
        "task.pause task/send",
        "queue.resume queue/b",
        "queue.resume queue/mail",
        "queue.pause queue/mail",
    ]
    assert acts["queue.pause queue/mail"]["href"] == "/ops/jobs/audit/1"
    # Until the last of its queues is resumed.
    assert _length(acts["queue.pause queue/mail"]) == pytest.approx(256 / 3, abs=0.2)
    assert _length(acts["worker.drain worker/web-1"]) == 4
    access.held.remove("audit.view")
    assert soup(get("").text).select(".act") == []


def _length(act: Any) -> float:
    """The length of the bar below the line."""
    return float(str(act.select_one(".foot")["d"]).partition("h")[2].partition("v")[0])


def test_a_pause_that_began_before_the_window_lasts_all_of_it(get: Get, session: Session) -> None:
    make_loops(session)
    make_job(session, queue="mail", task="send")
    make_event(session, action="queue.pause", at=ago(hours=3))
    session.commit()
    (act,) = soup(get("/queues/mail").text).select_one(".chart").select(".act")
    assert "h256" in act.select_one(".foot")["d"]
