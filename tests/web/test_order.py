"""The heads of lists order them, the order is in the address, and a head says why where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.search import hit_queries
from flask_opsjobs.web.batches import view as batches
from flask_opsjobs.web.cron import view as cron
from flask_opsjobs.web.limiters import view as limiters
from flask_opsjobs.web.queues import view as queues
from flask_opsjobs.web.workers import view as workers
from flask_opsjobs.web.workflows import view as workflows
from tests.web.every import soup
from tests.web.rows import ago, make_batch, make_job, make_worker

Get = Callable[..., Any]


def _names(text: str, select: str = "tbody th[scope=row] a.name") -> list[str]:
    return [each.text.split()[0] for each in soup(text).select(select)]


def _follow(get: Get, text: str, head: str) -> str:
    """The list after a press on a head."""
    (link,) = [each for each in soup(text).select("thead a.sort") if each.text == head]
    answer: str = get(str(link["href"]).removeprefix("/ops/jobs")).text
    return answer


def test_a_head_orders_the_list_and_a_second_press_turns_it(get: Get, session: Session) -> None:
    for queue, due in (("a", 1), ("b", 3), ("c", 2)):
        for number in range(due):
            make_job(session, queue=queue, due_at=ago(minutes=number + 1))
    session.commit()
    text = get("/queues").text
    assert _names(text) == ["a", "b", "c"]
    assert not soup(text).select("[aria-sort]")
    text = _follow(get, text, "Due")
    assert _names(text) == ["b", "c", "a"]
    (head,) = soup(text).select("[aria-sort]")
    assert (head.text, head["aria-sort"]) == ("Due", "descending")
    # What refreshes keeps the order.
    live = str(soup(text).select_one("#live")["hx-get"])
    assert parse_qs(urlsplit(live).query) == {"sort": ["-due"]}
    assert _names(get(live.removeprefix("/ops/jobs")).text) == ["b", "c", "a"]
    text = _follow(get, text, "Due")
    assert _names(text) == ["a", "c", "b"]
    assert soup(text).select_one("[aria-sort]")["aria-sort"] == "ascending"
    assert _names(_follow(get, text, "Queue")) == ["a", "b", "c"]
    assert _names(_follow(get, text, "Oldest due")) == ["b", "c", "a"]
    # What is not known comes last, in both directions.
    assert _names(_follow(get, text, "Failed")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("/queues", queues.KEYS),
        ("/workers", workers.KEYS),
        ("/cron", cron.KEYS),
        ("/limiters", limiters.KEYS),
        ("/workflows", workflows.KEYS),
        ("/batches", batches.KEYS),
    ],
)
def test_each_list_has_each_of_its_orders(
    path: str, columns: dict[str, Any], get: Get, session: Session
) -> None:
    make_job(session, queue="mail")
    make_worker(session)
    session.commit()
    for column in columns:
        for sort in (column, f"-{column}"):
            text = get(path, query_string={"sort": sort}).text
            live = str(soup(text).select_one("#live")["hx-get"])
            assert f"sort={sort}" in live
            assert get(live.removeprefix("/ops/jobs")).status_code == 200
    for nonsense in ("nobody", "--name", "name;drop", "-"):
        status = 200 if nonsense == "-" else 422
        assert get(path, status, query_string={"sort": nonsense})


def test_batches_are_ordered_and_their_pages_follow(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "ROWS", 2)
    for name, enqueued in (("a", 12), ("b", 30), ("c", 10), ("d", 20), ("e", 25)):
        make_batch(session, name=name, enqueued=enqueued)
    session.commit()
    text = get("/batches?sort=-ended").text
    assert _names(text) == ["c", "a"]
    older = str(soup(text).select_one("a[rel=next]")["href"]).removeprefix("/ops/jobs")
    assert _names(get(older).text) == ["d", "e"]


# --- jobs


@pytest.fixture
def jobs(session: Session) -> dict[str, int]:
    """Jobs whose orders differ."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        "runs": ("started", {"started_at": ago(minutes=9), "due_at": ago(minutes=10)}),
        "waits": ("available", {"due_at": ago(minutes=30)}),
        "later": ("scheduled", {"due_at": ago(minutes=-60)}),
        "ended": (
            "finished",
            {"started_at": ago(minutes=50), "due_at": ago(minutes=90), "ended_at": ago(minutes=49)},
        ),
        "tried": ("retryable", {"attempt": 4, "due_at": ago(minutes=-1)}),
    }
    made = {
        name: make_job(session, state, task=name, **columns).id
        for name, (state, columns) in rows.items()
    }
    session.commit()
    return made


def _tasks(text: str) -> list[str]:
    return _names(text, "table.jobs tbody td.who a.name")


def _tabs(text: str) -> list[list[str]]:
    return [tab.text.split() for tab in soup(text).select("nav.tabs a")]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("due", ["waits", "runs", "tried", "later"]),
        ("-run", ["runs", "ended"]),
        ("-wait", ["ended", "waits", "runs"]),
        ("-attempts", ["tried"]),
    ],
)
def test_jobs_are_ordered(sort: str, first: list[str], jobs: dict[str, int], get: Get) -> None:
    text = get(f"/jobs?sort={sort}").text
    assert _tasks(text)[: len(first)] == first
    assert len(_tasks(text)) == 5
    current = soup(text).select_one("nav[aria-label=Order] [aria-current]")
    assert current.text in soup(text).select_one("table.jobs caption").text
    # The links of the page keep the order.
    links = soup(text).select("nav.tabs a, nav[aria-label='Rows a page'] a")
    assert all(f"sort={sort}" in str(link["href"]) for link in links)
    # Beside other conditions too.
    narrow = get("/jobs", query_string={"q": "-state:finished -task:runs", "sort": sort}).text
    assert _tasks(narrow)[0] == next(name for name in _tasks(text) if name not in ("ended", "runs"))


def test_pages_of_jobs_follow_the_order(get: Get, session: Session) -> None:
    numbers = [7, 3, 9, *range(10, 60)]
    for number in numbers:
        make_job(session, "retryable", task=f"t{number}", attempt=number)
    session.commit()
    text = get("/jobs?sort=-attempts").text
    expected = [f"t{number}" for number in sorted(numbers, reverse=True)]
    assert _tasks(text) == expected[:25]
    older = str(soup(text).select_one("a[rel=next]")["href"]).removeprefix("/ops/jobs")
    second = get(older).text
    assert _tasks(second) == expected[25:50]
    newer = str(soup(second).select_one("a[rel=prev]")["href"]).removeprefix("/ops/jobs")
    assert _tasks(get(newer).text) == expected[:25]
    # The cursor of one order is not one of another.
    get(older.replace("-attempts", "due"), 422)


def test_a_head_says_why_more_jobs_than_can_be_read_are_not_ordered(
    get: Get, jobs: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    text = get("/jobs").text
    assert [each.text for each in soup(text).select("thead a.sort")] == ["Job"]
    attempts, *_ = soup(text).select("thead .unsorted")
    assert attempts["title"].startswith("More than 3 jobs match, or not all were searched")
    assert attempts["title"] in attempts.text
    text = get("/jobs?sort=-run").text
    assert "Not ordered by longest run: the newest come first." in soup(text).text
    assert _tasks(text) == ["tried", "ended", "later", "waits", "runs"]
    # A state narrows it, and the tabs still count the jobs of the others.
    text = get("/jobs?sort=-run&state=started").text
    assert _tasks(text) == ["runs"]
    assert _tabs(text) == _tabs(get("/jobs?state=started").text)


def test_jobs_that_cannot_be_ordered_have_more_pages(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    for number in range(40):
        make_job(session, "retryable", task=f"t{number}", attempt=number)
    session.commit()
    expected = [f"t{number}" for number in reversed(range(40))]
    text = get("/jobs?sort=-attempts").text
    assert _tasks(text) == expected[:25]
    older = str(soup(text).select_one("a[rel=next]")["href"]).removeprefix("/ops/jobs")
    second = get(older).text
    assert _tasks(second) == expected[25:]
    newer = str(soup(second).select_one("a[rel=prev]")["href"]).removeprefix("/ops/jobs")
    assert _tasks(get(newer).text) == expected[:25]


def test_the_longest_run_is_that_of_the_last_attempt(get: Get, session: Session) -> None:
    times = {"short": 5, "long": 50}
    for name, seconds in times.items():
        ended = ago(minutes=5)
        started = ended - timedelta(seconds=seconds)
        make_job(session, "finished", task=name, started_at=started, ended_at=ended)
    session.commit()
    assert _tasks(get("/jobs?sort=-run&q=duration:>1s").text) == ["long", "short"]
    assert _tasks(get("/jobs?q=duration:>30s").text) == ["long"]
