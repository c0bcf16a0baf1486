"""The heads of lists order them, the order is in the address, and a head says why where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from flask_opsjobs.cron.lifecycle import OVERLAPS
from flask_opsjobs.cron.transitions import Slot
from flask_opsjobs.jobs.models import EnqueueCount
from flask_opsjobs.jobs.search import hit_queries
from flask_opsjobs.limits.models import Bucket, LimitMinute
from flask_opsjobs.overview.models import Rollup, RollupPosition
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.tasks import ranking
from flask_opsjobs.web.batches import view as batches
from flask_opsjobs.web.cron import view as cron
from flask_opsjobs.web.limiters import view as limiters
from flask_opsjobs.web.queues import view as queues
from flask_opsjobs.web.workers import view as workers
from flask_opsjobs.web.workflows import view as workflows
from flask_opsjobs.workers.pool_report import PoolReport
from tests.web.every import soup
from tests.web.rows import (
    ago,
    make_batch,
    make_entry_of,
    make_job,
    make_limited,
    make_limiter,
    make_run,
    make_task_hour,
    make_worker,
)

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


# --- each column of each list, with rows of which no two columns have the same order

# What a row has in each column, as its place from 0 to 3 in the order of that column.
Places = Mapping[str, int]
ROWS = "abcd"
# None of them is another one backwards.
ORDERS = ["".join(one) for one in permutations(ROWS)][::2]


def _make_queue(session: Session, name: str, at: Places) -> str:
    for column, state in (("waiting", "scheduled"), ("queued", "queued"), ("started", "started")):
        for _ in range(at[column] + 1):
            make_job(session, state, queue=name)
    for _ in range(at["due"] + 1):
        make_job(session, queue=name, due_at=ago(minutes=10 * at["oldest"] + 30))
    for _ in range(at["workers"] + 1):
        make_worker(session, queues=[name])
    minute = ago(minutes=9).replace(second=0, microsecond=0)
    failed = at["failed"] + 1
    finished = 10 * at["ended"] + 10 - failed
    session.add_all(
        [
            EnqueueCount(minute=minute, queue=name, enqueued=at["enqueued"] + 1),
            Rollup(minute=minute, queue=name, finished=finished, failed=failed),
            Queue(name=name, created_at=ago(days=1), prefetch=at["prefetch"] + 1),
        ]
    )
    return name


def _make_worker_row(session: Session, name: str, at: Places) -> str:
    """Whether it is late is told by its heartbeat, so the orders of both columns belong together."""
    pool = PoolReport(
        jobs_per_second=at["rate"] + 0.5, from_postgres=at["taken"] + 0.5, reserved=at["reserved"]
    )
    is_draining, is_late = divmod(at["state"], 2)
    assert is_late == at["heartbeat"] // 2
    make_worker(
        session,
        name=name,
        queues=[f"q{at['queues']}", "a"],
        pool=pool.to_json(),
        rss_kb=90_000 + at["memory"],
        heartbeat_at=ago(seconds=(1, 2, 600, 700)[at["heartbeat"]]),
        drain_requested_at=ago(seconds=30) if is_draining else None,
        drain_requested_by="anna" if is_draining else None,
    )
    return name


def _make_cron_row(session: Session, name: str, at: Places) -> str:
    slots = [Slot(ago(hours=10 - at["last"]), "ran", job_id=1)]
    slots += [Slot(ago(hours=20 + number), "missed") for number in range(at["missed"] + 1)]
    make_entry_of(
        session,
        name,
        "send",
        ago(days=-2 * at["next"]),
        slots,
        expression=f"{at['schedule']} 0 * * *",
        overlap=sorted(OVERLAPS)[at["overlap"]],
    )
    return name


def _make_limiter_row(session: Session, name: str, at: Places) -> str:
    """The tokens and the time of the next start are independent, since the rates differ."""
    rate, tokens = at["allows"] + 2, at["tokens"] - 5
    # A job that comes next needs a token after all that are queued.
    lacking = 1 + (at["queued"] + 1) - tokens
    per_seconds = 36_000 * (at["next"] + 1) * rate / lacking
    shape: dict[str, Any] = {"rate": rate, "per_seconds": per_seconds, "concurrency": None}
    make_limiter(session, name, partition_by=None, **shape)
    now, minute = ago(), ago(minutes=9).replace(second=0, microsecond=0)
    bucket = Bucket(limiter=name, partition="", tokens=tokens, refilled_at=now, last_used_at=now)
    counts = {
        column: at[shown] + 1
        for column, shown in (
            ("admitted", "started"),
            ("recalled", "recalled"),
            ("rejected", "rejected"),
        )
    }
    session.add_all([bucket, LimitMinute(limiter=name, minute=minute, **counts)])
    for column, state in (("waiting", "available"), ("queued", "queued"), ("running", "started")):
        for _ in range(at[column] + 1):
            make_limited(session, "", state, limiter=name)
    return name


def _make_run_row(session: Session, name: str, at: Places) -> str:
    """Runs of its name that finished tell what is usual; the list has them too."""
    for _ in range(3):
        _end(session, name, "finished", ago(hours=9), timedelta(seconds=100 * at["usual"] + 100))
    steps = 5 * (10 - 2 * at["settled"])
    settled = (at["settled"] + 1) * steps // 5
    state = ("canceled", "failed", "finished", "running")[at["state"]]
    counts = {"steps": steps, "settled": settled, "finished": settled}
    took = timedelta(minutes=10 * at["takes"] + 10)
    return _end(session, name, state, datetime.now(UTC) - took, took, **counts)


def _end(
    session: Session, name: str, state: str, start: datetime, took: timedelta, **values: Any
) -> str:
    """A run without steps that began then; it has ended unless it is running. Its id."""
    if state != "running":
        by = "step" if state == "failed" else state
        values |= {"ended_at": start + took, "ended_by": by}
    values = {"steps": 1, **values}
    return str(make_run(session, {}, name=name, state=state, created_at=start, **values).id)


def _make_batch_row(session: Session, name: str, at: Places) -> str:
    """What is ordered by ended is their share."""
    enqueued = 5 * (10 - 2 * at["ended"])
    failed = at["failed"] + 1
    batch = make_batch(
        session,
        ("canceled", "failed", "finished", "running")[at["state"]],
        name=name,
        enqueued=enqueued,
        failed=failed,
        finished=(at["ended"] + 1) * enqueued // 5 - failed,
        created_at=ago(minutes=10 * at["took"] + 10),
    )
    return str(batch.id)


def _make_task_row(session: Session, name: str, at: Places) -> str:
    """Yesterday it had the same numbers, but less memory: by so much it changed."""
    ended = 10 * at["ended"] + 10
    failed = ended * (at["failed"] + 1) // 10
    runs = [0] * 15
    runs[2 + at["median"]], runs[8 + at["p95"]] = 60, 40
    counts: dict[str, Any] = {
        "enqueued": at["enqueued"] + 1,
        "finished": ended - failed,
        "failed": failed,
        "runs": runs,
        "longest_run": at["longest"] + 9.0,
        "waits": [0] * (3 + at["wait"]) + [30],
    }
    memory = 840_000 + 8_400 * at["memory"]
    minute = ago(minutes=40).replace(second=0, microsecond=0)
    make_task_hour(session, name, minute=minute, peak_kb=memory, **counts)
    minute -= timedelta(days=1)
    before = memory // (at["change"] + 2)
    make_task_hour(session, name, minute=minute, peak_kb=before, **counts)
    return name


@dataclass(frozen=True)
class OrderedList:
    """A list, and what makes a row of it: it returns what the row's address or name ends with.

    `orders` are those of columns that are not independent of each other.
    """

    path: str
    columns: Collection[str]
    make: Callable[[Session, str, Places], str]
    orders: Mapping[str, str] = field(default_factory=dict)
    names: str = "tbody th[scope=row] a.name"

    def choose_orders(self) -> Mapping[str, str]:
        """The rows in ascending order, by column: another order for each."""
        chosen = {"task" if "task" in self.columns else "name": ROWS, **self.orders}
        others = [one for one in ORDERS if one not in chosen.values()]
        free = [column for column in self.columns if column not in chosen]
        return {**chosen, **dict(zip(free, others, strict=False))}

    def read_rows(self, page: Any) -> list[str]:
        """What the addresses or the names of its rows end with, in the order of the page."""
        found = page.select(self.names)
        return [str(each.get("href", each.text)).rpartition("/")[2] for each in found]


ALL_LISTS = (
    OrderedList("/queues", queues.KEYS, _make_queue),
    OrderedList(
        "/workers",
        workers.KEYS,
        _make_worker_row,
        {"state": "cabd", "heartbeat": "bcad"},
        "[aria-labelledby=ours] th span.mono",
    ),
    OrderedList("/cron", cron.KEYS, _make_cron_row),
    OrderedList("/limiters", limiters.KEYS, _make_limiter_row),
    OrderedList(
        "/workflows", workflows.KEYS, _make_run_row, names="[aria-labelledby=runs] th a.name"
    ),
    OrderedList("/batches", batches.KEYS, _make_batch_row),
    OrderedList("/tasks", ranking.KEYS, _make_task_row),
)


@pytest.mark.parametrize("one", ALL_LISTS, ids=lambda one: one.path)
def test_each_column_orders_the_rows_by_what_they_have_in_it(
    one: OrderedList, get: Get, session: Session
) -> None:
    orders = one.choose_orders()
    assert set(orders) == set(one.columns)
    assert len(set(orders.values())) == len(orders)
    made = {}
    for name in ROWS:
        places = {column: order.index(name) for column, order in orders.items()}
        made[one.make(session, name, places)] = name
    session.execute(update(RollupPosition).values(counted_from=ago(hours=9), counted_until=ago()))
    session.commit()
    # The heads of the page are these columns.
    links = [str(link["href"]) for link in soup(get(one.path).text).select("#live thead a.sort")]
    heads = {parse_qs(urlsplit(link).query)["sort"][0].removeprefix("-") for link in links}
    assert heads == set(orders)
    found, expected = {}, {}
    for column, order in orders.items():
        for sort, rows in ((column, order), (f"-{column}", order[::-1])):
            page = soup(get(one.path, query_string={"sort": sort}).text)
            found[sort] = "".join(made[row] for row in one.read_rows(page) if row in made)
            expected[sort] = rows
    assert found == expected
