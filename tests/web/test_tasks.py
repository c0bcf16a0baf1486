"""The list of tasks, in any order and the worst change first, and the page of one task."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete
from sqlalchemy.orm import Session

from flask_opsjobs import Limit, OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from flask_opsjobs.tasks import queries
from flask_opsjobs.tasks.models import TaskHour
from tests.support.clock import Clock
from tests.web.conftest import Access
from tests.web.every import draft_form, soup
from tests.web.rows import (
    ago,
    make_attempt,
    make_counted_failure,
    make_deploy,
    make_entry_of,
    make_job,
    make_loops,
    make_run,
    make_task_hour,
)

Get = Callable[..., Any]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def _words(found: Any) -> str:
    return " ".join(found.get_text(" ").split())


def _rows(get: Get, query: str = "") -> list[str]:
    page = soup(get(f"/tasks{query}").text)
    return [_words(row) for row in page.select("tr[data-row]")]


def _names(get: Get, query: str = "") -> list[str]:
    return [row.split()[0] for row in _rows(get, query)]


def test_the_command_says_the_same_durations_as_the_page(
    get: Get, app: Flask, session: Session
) -> None:
    make_task_hour(session, "quick", runs=[31], waits=[0] * 14 + [31], longest_run=0.00046)
    session.commit()
    (row,) = soup(get("/tasks").text).select("tr[data-row]")
    labels = ("median", "p95", "longest", "wait p95")
    words = [row.select(f"[data-label='{label}']")[0].text for label in labels]
    assert words[0] == "0.46 ms"
    said = app.test_cli_runner().invoke(args=["opsjobs", "tasks"]).output
    assert ", ".join(map(" ".join, zip(labels, words, strict=True))) in said


def _days_before(session: Session, days: int, task: str, **values: Any) -> None:
    minute = (ago(minutes=40) - timedelta(days=days)).replace(second=0, microsecond=0)
    make_task_hour(session, task, minute=minute, **values)


def _yesterday(session: Session, task: str, **values: Any) -> None:
    _days_before(session, 1, task, **values)


def test_the_worst_change_comes_first(get: Get, session: Session) -> None:
    make_loops(session)
    slow: dict[str, Any] = {"runs": [0] * 11 + [31], "longest_run": 1.9}
    make_task_hour(session, "slow", **slow)
    _yesterday(session, "slow")
    make_task_hour(session, "broken", finished=1, failed=30)
    _yesterday(session, "broken", failed=0)
    make_task_hour(session, "large", peak_kb=400_000)
    _yesterday(session, "large")
    for task in ("same", "better"):
        make_task_hour(session, task)
    _yesterday(session, "same")
    _yesterday(session, "better", finished=10, failed=21)
    make_task_hour(session, "fresh", failed=0)
    session.commit()
    rows = _rows(get)
    assert [row.split()[0] for row in rows][:3] == ["broken", "slow", "large"]
    assert rows[-1].startswith("better")
    assert "fails: 97 % in the last two hours, 0 % yesterday" in rows[0]
    assert "p95 rose: 250 ms before, 1.9 s now" in rows[1]
    assert "memory: 88 MB before, 391 MB now" in rows[2]
    assert "less failed: 9.7 % now, 68 % yesterday" in rows[-1]
    by_name = {row.split()[0]: row for row in rows}
    assert "as yesterday" in by_name["same"]
    assert "no jobs yesterday to compare with" in by_name["fresh"]
    page = soup(get("/tasks").text)
    assert _words(page.select_one(".say")).startswith("broken: fails: 97 %")
    assert "2 more tasks got worse" in _words(page.select_one(".say"))
    # Nothing is known of a week ago.
    rows = _rows(get, "?against=week")
    assert "fails: 97 % in the last two hours, none ran a week before" in rows[0]
    assert all("no jobs a week before to compare with" in row for row in rows[1:])


def test_against_a_week_before_other_tasks_got_worse(get: Get, session: Session) -> None:
    make_loops(session)
    for task, now, yesterday, week in (
        ("mail", 400_000, 400_000, 100_000),
        ("texts", 300_000, 100_000, 300_000),
        ("post", 500_000, 250_000, 200_000),
        ("fresh", 90_000, 90_000, None),
    ):
        make_task_hour(session, task, peak_kb=now)
        _yesterday(session, task, peak_kb=yesterday)
        # Neither is within the hours that are compared.
        _days_before(session, 6, task, peak_kb=1)
        _days_before(session, 8, task, peak_kb=1)
        if week:
            _days_before(session, 7, task, peak_kb=week)
    session.commit()
    assert _names(get) == ["texts", "post", "fresh", "mail"]
    assert "beside yesterday" in soup(get("/tasks").text).caption.text
    rows = _rows(get, "?against=week")
    assert [row.split()[0] for row in rows] == ["mail", "post", "fresh", "texts"]
    assert "memory: 98 MB before, 391 MB now" in rows[0]
    assert "memory: 195 MB before, 488 MB now" in rows[1]
    assert "no jobs a week before to compare with" in rows[2]
    assert "as a week before" in rows[3]
    page = soup(get("/tasks?against=week").text)
    assert page.caption.text == "Tasks of the last 24 hours, beside a week before"
    said = _words(page.select_one(".say"))
    assert "mail: memory: 98 MB before, 391 MB now. 1 more task got worse." in said
    # What refreshes, and a press on a head, keep what is compared.
    for kept in (page.select_one("#live")["hx-get"], page.select_one("thead a.sort")["href"]):
        assert "against=week" in str(kept)


def test_of_equal_changes_the_sentence_tells_the_first_of_the_list(
    get: Get, session: Session
) -> None:
    make_loops(session)
    for task in ("mail", "post"):
        make_task_hour(session, task, peak_kb=400_000)
        _yesterday(session, task, peak_kb=100_000)
    session.commit()
    assert _names(get) == ["mail", "post"]
    assert _words(soup(get("/tasks").text).select_one(".say")).startswith("mail: memory: ")


def test_the_trend_of_a_task_draws_its_hours_its_failures_and_the_deploys(
    get: Get, session: Session, clock: Clock
) -> None:
    make_loops(session)
    this_hour = clock.now.replace(minute=0, second=0, microsecond=0)

    def at(hours: int, minutes: int = 30) -> datetime:
        return this_hour - timedelta(hours=hours) + timedelta(minutes=minutes)

    make_task_hour(session, "send", minute=at(0, 0), finished=30, failed=10)
    make_task_hour(session, "send", minute=at(5), finished=20, failed=0)
    make_task_hour(session, "send", minute=at(24), finished=900)
    make_task_hour(session, "other", minute=at(1), finished=7, failed=0)
    make_deploy(session, at=at(2))
    make_deploy(session, "2026.10.9", at=at(24))
    session.commit()
    drawn = {
        row.select_one("a.name").text: row.select_one("svg.spark")
        for row in soup(get("/tasks").text).select("tr[data-row]")
    }
    says = {task: trend["aria-label"] for task, trend in drawn.items()}
    assert says == {
        "send": "60 jobs in 24 hours, 10 failed, 1 deploy",
        "other": "7 jobs in 24 hours, 1 deploy",
    }
    bars, failed = (str(path["d"]) for path in drawn["send"].select(".bars"))
    # An hour is 4 wide, and the current one begins at 92. 17 is the height of the most jobs of an hour.
    assert bars == "M72 20h3.2v-8.5h-3.2zM92 20h3.2v-17.0h-3.2z"
    assert failed == "M92 20h3.2v-4.2h-3.2z"
    (other,) = drawn["other"].select(".bars")
    assert other["d"] == "M88 20h3.2v-17.0h-3.2z"
    for trend in drawn.values():
        assert trend.select_one(".deploy")["d"] == "M86.0 0V20"


def test_each_column_sorts_and_the_order_is_in_the_address(
    get: Get, client: FlaskClient, session: Session
) -> None:
    make_loops(session)
    make_task_hour(session, "a", enqueued=1, runs=[], longest_run=None)
    make_task_hour(session, "b", enqueued=9, longest_run=0.2)
    make_task_hour(session, "c", enqueued=5, longest_run=0.25)
    session.commit()
    assert _names(get, "?sort=enqueued") == ["a", "c", "b"]
    assert _names(get, "?sort=-enqueued") == ["b", "c", "a"]
    # What is not known comes last, however it is sorted.
    assert _names(get, "?sort=longest") == ["b", "c", "a"]
    assert _names(get, "?sort=-longest") == ["c", "b", "a"]
    assert _names(get, "?sort=-task") == ["c", "b", "a"]
    page = soup(get("/tasks?sort=task&find=b").text)
    (head,) = page.select("th[aria-sort]")
    assert (_words(head), head["aria-sort"]) == ("Task and queue", "ascending")
    assert head.a["href"].endswith("?find=b&sort=-task")
    assert [_words(one).split()[0] for one in page.select("tr[data-row]")] == ["b"]
    for query in ("sort=colour", "against=never", "after=x", f"find={'x' * 201}"):
        assert client.get(f"/ops/jobs/tasks?{query}").status_code == 422


def test_no_percentile_is_above_the_longest_run(get: Get, session: Session) -> None:
    make_loops(session)
    make_task_hour(session, "a", runs=[0] * 13 + [9], longest_run=4.9)  # within 4.1 and 8.2 s
    session.commit()
    (row,) = _rows(get)
    assert row.count("4.9 s") == 3


def test_a_list_of_many_tasks_goes_on(get: Get, session: Session) -> None:
    for number in range(60):
        make_task_hour(session, f"task_{number:02}")
    session.commit()
    page = soup(get("/tasks?sort=task").text)
    assert "1 to 50 of 60" in _words(page)
    more = page.select_one('a[rel="next"]')
    assert more is not None
    assert _names(get, "?" + str(more["href"]).partition("?")[2])[0] == "task_50"
    behind = soup(get("/tasks?sort=task&find=task_1&after=50").text).select_one("#part .empty")
    assert "The list has only 10 tasks now" in _words(behind)
    assert behind.a["href"] == "/ops/jobs/tasks?find=task_1&sort=task&after=0"


@pytest.mark.slow
def test_of_more_than_five_thousand_tasks_the_first_are_compared_and_that_is_said(
    get: Get, app: Flask, session: Session
) -> None:
    make_loops(session)
    hour = ago(hours=1).replace(minute=0, second=0, microsecond=0)
    names = (f"task_{number:05}" for number in range(queries.MOST_TASKS + 1))
    session.add_all(TaskHour(task=name, hour=hour, enqueued=1, finished=1) for name in names)
    session.commit()
    says = "the first 5,000 tasks by name, there are more; a line in a trend"
    assert says in _words(soup(get("/tasks").text).select_one("#part"))
    assert len(_names(get, "?sort=-task")) == 50
    assert _names(get, "?sort=-task")[0] == "task_04999"
    printed = app.test_cli_runner().invoke(args=["opsjobs", "tasks"]).output.splitlines()
    assert len(printed) == 2 * queries.MOST_TASKS + 1
    assert printed[-1] == "only the first 5,000 tasks by name were compared; there are more"
    session.execute(delete(TaskHour).where(TaskHour.task == "task_00000"))
    session.commit()
    assert "5,000 tasks; a line" in _words(soup(get("/tasks").text).select_one("#part"))
    found = app.test_cli_runner().invoke(args=["opsjobs", "tasks", "--json"]).output
    assert json.loads(found)["has_more"] is False


def test_the_page_of_a_task_says_what_it_does(
    get: Get,
    client: FlaskClient,
    session: Session,
    opsjobs: OpsJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @opsjobs.task(
        queue="mail",
        max_attempts=3,
        timeout=30,
        tags=["letters"],
        limit=Limit("post", concurrency=5),
        unique=Unique(by=["to"], until="ended"),
        redact={"secret"},
    )
    def send(to: str, secret: str = "") -> None: ...

    make_loops(session)
    make_task_hour(session, "send")
    _yesterday(session, "send", failed=0)
    deploy = make_deploy(session)
    failed = [make_job(session, "failed", task="send") for _ in range(2)]
    for job in failed:
        make_attempt(session, job)
    make_counted_failure(session, failed, deploy, task="send", last_at=ago(minutes=2))
    for state in ("retryable", "available", "available", "started"):
        make_job(session, state, task="send")
    make_run(session, {"notify": failed[0].id}, name="send letters")
    failed[0].workflow_id = 1
    session.commit()
    page = soup(get("/tasks/send").text)
    lead = _words(page.select_one(".lead"))
    assert "33 enqueued and 31 ended in 24 hours" in lead
    assert "9.7 % failed, 0 % yesterday" in lead
    assert "4 not ended" in lead
    charts = [_words(one) for one in page.select(".chart h3")]
    assert charts == ["Throughput", "Failures", "Run time", "Wait"]
    assert len(page.select(".chart .deploy")) == 4
    assert page.select_one(".trace.ghost") is not None
    failures = _words(page.select_one('[aria-labelledby="failures"]'))
    assert "GatewayTimeout" in failures
    assert "Attempts Jobs failed" in failures
    why = str(page.select_one("#why-waiting")["hx-get"]).removeprefix("/ops/jobs")
    waiting = _words(soup(get(why).text).select_one("#waiting-jobs"))
    assert "3 jobs wait." in waiting
    assert "no live worker listens to queue default" in waiting
    column = page.select(".split > .stack > [id], .split > .stack > [aria-labelledby]")
    order = [str(one.get("aria-labelledby") or one["id"]) for one in column]
    assert order == ["failures", "why-waiting", "searches", "declared", "deaths"]
    searches = page.select('[aria-labelledby="searches"] a')
    found = {
        one.text: len(soup(client.get(one["href"]).text).select("tr[data-row]")) for one in searches
    }
    assert found == {
        "newest jobs": 6,
        "newest failed": 2,
        "slowest of the last day": 6,
        "longest wait of the last day": 6,
        "to be tried again": 1,
        "running now": 1,
    }
    beside = [_words(one) for one in page.select('[aria-labelledby="searches"] li .mute')]
    assert [one.split()[0] for one in beside] == ["250", "p95"]
    declared = _words(page.select_one('[aria-labelledby="declared"]'))
    for words in (
        "Attempts 3,",
        "Time limit 30 s",
        "letters",
        "post",
        "by to, until ended",
        "secret",
        "Workflows send letters",
    ):
        assert words in declared
    for window in ("hour", "month"):
        assert get(f"/tasks/send?window={window}").status_code == 200
    # Of more jobs than are looked at, it says how many were.
    monkeypatch.setattr(queries, "MOST_LOOKED_AT", 3)
    page = soup(get("/tasks/send").text)
    assert "3 not ended of its newest 3 jobs" in _words(page.select_one(".lead"))
    assert "Workflows of its newest 3 jobs none" in _words(page)


def test_the_page_of_a_task_names_its_own_cron_entries_only(
    get: Get, session: Session, opsjobs: OpsJobs
) -> None:
    @opsjobs.task
    def send() -> None: ...

    @opsjobs.task
    def idle() -> None: ...

    for name, task in (("nightly", "send"), ("hourly", "send"), ("weekly", "send_more")):
        make_entry_of(session, name, task, ago(minutes=1))
    session.commit()
    links = {
        task: {
            link.text.strip(): str(link["href"])
            for link in soup(get(f"/tasks/{task}").text).select('a[href*="/cron/"]')
        }
        for task in ("send", "idle")
    }
    entries = {name: f"/ops/jobs/cron/{name}" for name in ("hourly", "nightly")}
    assert links == {"send": entries, "idle": {}}
    declared = soup(get("/tasks/idle").text).select_one('[aria-labelledby="declared"]')
    assert "Cron none" in _words(declared)


def test_tags_made_by_a_function_are_said_so(get: Get, opsjobs: OpsJobs) -> None:
    @opsjobs.task(tags=lambda args: [f"customer/{args['account']}"])
    def send(account: int) -> None: ...

    declared = soup(get("/tasks/send").text).select_one('[aria-labelledby="declared"]')
    assert "Tags by a function of the arguments Limiter" in _words(declared)


def test_durations_are_shown_as_declared(get: Get, opsjobs: OpsJobs) -> None:
    unique = Unique(by=["account"], within=timedelta(hours=1))

    @opsjobs.task(deadline=timedelta(days=30, minutes=1, seconds=1.5), unique=unique)
    def send(account: int) -> None: ...

    declared = soup(get("/tasks/send").text).select_one('[aria-labelledby="declared"]')
    assert "Deadline 30 d 1 min 1.5 s after it is due" in _words(declared)
    assert "Unique by account, for 1 h" in _words(declared)


def test_a_job_that_runs_much_longer_than_others_of_its_task_is_marked(
    get: Get, session: Session
) -> None:
    """The others ran up to 256 ms, so five times of it are about a second."""
    make_loops(session)
    runs = [0] * 8 + [60] + [0] * 4 + [1]
    make_task_hour(session, "send", runs=runs, longest_run=5.0)
    then = ago(hours=1)
    ended = {"started_at": then, "ended_at": then + timedelta(seconds=5)}
    long = make_job(session, "finished", task="send", **ended)
    short = make_job(session, "finished", task="send", **ended | {"ended_at": then})
    running = make_job(session, "started", task="send", started_at=ago(seconds=30))
    other = make_job(session, "finished", task="other", **ended)
    session.commit()
    page = soup(get("/jobs").text)
    marked = {
        int(row.select_one("a.id").text)
        for row in page.select("tr[data-row]")
        if "long run" in _words(row)
    }
    assert marked == {long.id, running.id}
    for job in (long, short, running, other):
        head = soup(get(f"/jobs/{job.id}").text).select_one("header.head")
        assert ("long run" in _words(head)) is (job.id in marked)
    assert "≥ 1 long run" in _words(soup(get("/tasks/send").text).select_one(".lead"))


def test_the_command_counts_long_runs_as_the_page_does(
    get: Get, app: Flask, session: Session
) -> None:
    make_task_hour(session, "sync", runs=[0] * 8 + [100, 0, 0, 0, 2], longest_run=3.9)
    session.commit()
    assert "≥ 2 long runs" in _words(soup(get("/tasks/sync").text))
    assert "at least 2 long runs" in app.test_cli_runner().invoke(args=["opsjobs", "tasks"]).output
    found = app.test_cli_runner().invoke(args=["opsjobs", "tasks", "--json"]).output
    assert json.loads(found)["tasks"][0]["long_runs"] == 2


def test_a_task_that_was_renamed_still_shows_its_waiting_jobs(
    get: Get, opsjobs: OpsJobs, session: Session
) -> None:
    @opsjobs.task(name="sync_customers")
    def sync() -> None:
        """The new name of sync_clients."""

    make_loops(session)
    names = ("sync_clients", "sync_customers")
    for task, number in zip(names, (2, 1), strict=True):
        make_task_hour(session, task)
        for _ in range(number):
            make_job(session, "available", task=task)
    session.commit()
    assert set(_names(get)) == set(names)
    old, new = (_words(soup(get(f"/tasks/{task}").text)) for task in names)
    says = "not declared in this code", "This code declares no such task"
    assert [text in old for text in says] == [True, True]
    assert [text in new for text in says] == [False, False]
    found = soup(get("/jobs?q=task:sync_clients+state:available").text)
    assert len(found.select("tr[data-row]")) == 2
    why = _words(soup(get("/jobs/why?q=task:sync_clients").text))
    assert "2 jobs wait" in why


def test_a_task_that_nobody_knows_is_not_found(client: FlaskClient, session: Session) -> None:
    make_loops(session)
    session.commit()
    for path in ("/tasks/nobody", "/live/tasks/nobody"):
        assert client.get(f"/ops/jobs{path}").status_code == 404


def test_a_page_without_loops_says_that_its_numbers_stand_still(get: Get, session: Session) -> None:
    make_task_hour(session, "send")
    session.commit()
    for path in ("/tasks", "/tasks/send"):
        assert "The numbers stand still" in _words(soup(get(path).text))


def test_searches_need_the_permission_to_see_jobs(
    get: Get, session: Session, access: Access
) -> None:
    make_task_hour(session, "send")
    make_job(session, "available", task="send")
    session.commit()
    access.held.discard("jobs.view")
    page = soup(get("/tasks/send").text)
    assert page.select_one('[aria-labelledby="searches"]') is None
    assert not page.select('a[href*="/jobs?"]')


def test_a_paused_task_says_by_whom_and_why_and_can_be_resumed(
    get: Get, client: FlaskClient, host: Host, session: Session, access: Access
) -> None:
    make_loops(session)
    make_job(session, "available", task="send")
    session.commit()
    button = "button[formaction$='/tasks/send/pause']"
    assert soup(get("/tasks/send").text).select(button)
    access.held -= {"task.pause"}
    (refused,) = soup(get("/tasks/send").text).select("button[disabled]")
    assert "needs task.pause" in refused.text
    assert client.post("/ops/jobs/tasks/send/pause", headers=SAME_ORIGIN).status_code == 403
    access.held |= {"task.pause"}
    why: dict[str, Any] = {"actor": "anna", "reason": "the <b>letters</b> are wrong"}
    assert Operator(host).run("task.pause", ["task/send"], **why).is_done
    for path in ("/tasks/send", "/tasks"):
        say = soup(get(path).text).select_one(".say[data-is='paused']")
        leads_to = [link["href"] for link in say.select("a")]
        assert leads_to == ["/ops/jobs/tasks/send"] * (path == "/tasks")
        said = _words(say)
        assert "send is paused" in said
        assert "by anna: “the <b>letters</b> are wrong”" in said
    assert soup(get("/tasks/send").text).select("button[formaction$='/tasks/send/resume']")
    assert not soup(get("/tasks/send").text).select(button)


def test_the_jobs_of_a_task_that_wait_are_cleared_through_a_draft(
    get: Get, client: FlaskClient, session: Session, access: Access
) -> None:
    for state in ("available", "scheduled", "retryable", "started", "failed"):
        make_job(session, state, task="send *", queue=state)
    make_job(session, "available", task="send more")
    session.commit()
    form = draft_form(soup(get("/tasks/send *").text), "Clear…")
    draft = client.post("/ops/jobs/operations/draft", data=form, headers=SAME_ORIGIN)
    assert "Cancel 3 jobs of send *?" in _words(soup(client.get(draft.location).text).h1)
    access.held -= {"job.cancel"}
    (clear,) = soup(get("/tasks/send *").text).select("header .actions button[disabled]")
    assert _words(clear) == "Clear needs job.cancel"
