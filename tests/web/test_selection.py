"""All jobs that match: the link that selects them, the bar with its actions, and the form that drafts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.search import hit_queries
from flask_opsjobs.operations.models import Operation
from flask_opsjobs.web.jobs import view
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import (
    ago,
    make_attempt,
    make_batch,
    make_failure,
    make_incident,
    make_job,
    make_worker,
)

Get = Callable[..., Any]


@pytest.fixture
def many(session: Session) -> None:
    """30 failed jobs, 2 scheduled, 3 finished."""
    for state, number in (("failed", 30), ("scheduled", 2), ("finished", 3)):
        for _ in range(number):
            make_job(session, state, queue="mail", tags=["eu"])
    session.commit()


def _bar(text: str) -> Any:
    return soup(text).select_one("#selected")


def _words(element: Any) -> str:
    return " ".join(element.text.split())


def test_the_link_says_how_many_match_and_how_they_were_counted(get: Get, many: None) -> None:
    bulk = soup(get("/jobs?state=failed").text).select_one(".bulk")
    link = bulk.select_one("[data-select-all]")
    assert link.text == "Select all 30 that match"
    assert link["href"].endswith("/jobs?selected=all&state=failed#selected")
    assert _words(bulk).partition("match")[2].startswith(" counted exactly")
    # All that match are on the page: its rows can be selected.
    assert not soup(get("/jobs?state=scheduled").text).select("[data-select-all]")


def test_a_count_that_stopped_says_at_least(
    get: Get, many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "counted exactly" in _words(_bar(get("/jobs?tag=eu&selected=all").text))
    monkeypatch.setattr(hit_queries, "MOST_HITS", 20)
    bar = _words(_bar(get("/jobs?tag=eu&selected=all").text))
    assert bar.startswith(
        "All 20+ that match are selected, at least: the draft counts them all Clear"
    )
    assert "+…" in bar


def test_each_button_bears_the_number_that_allows_it(get: Get, many: None) -> None:
    text = get("/jobs?queue=mail&selected=all").text
    buttons = {_words(one): one for one in _bar(text).select("button")}
    assert list(buttons) == [
        "Retry 30…",
        "Cancel 2…",
        "Discard 2…",
        "Run again 33…",
        "Delete 33…",
    ]
    assert [words for words, one in buttons.items() if "main" in one["class"]] == ["Retry 30…"]
    one = _bar(get("/jobs?state=failed&selected=all").text).select("button")
    assert [_words(each) for each in one if each.has_attr("disabled")] == [
        "Cancel all have ended",
        "Discard none waits",
    ]
    # Every box is ticked, and none of them belongs to a form.
    boxes = soup(text).select("table.jobs input")
    assert len(boxes) == 26
    assert all(box.has_attr("checked") and not box.has_attr("name") for box in boxes)
    assert not soup(text).select("[data-pick]")


def _place(get: Get, path: str, words: str) -> dict[str, str]:
    """Follow the link of a page that selects all jobs of its place; the buttons with their words."""
    link = soup(get(path).text).find("a", string=words)
    text = get(link["href"].removeprefix("/ops/jobs").partition("#")[0]).text
    buttons = _bar(text).select("[name=action]")
    return {each["value"].removeprefix("job."): _words(each) for each in buttons}


def test_each_place_selects_its_jobs_with_the_actions_that_can_be_legal(
    get: Get, session: Session, bench: Bench
) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a", "failed")
    batch = make_batch(session)
    for state in ("failed", "finished"):
        make_job(session, state, batch_id=batch.id)
    gone = make_worker(session, "missing")
    make_job(session, "started", queue="mail", worker_id=gone.id)
    waiting = make_job(session, "scheduled", queue="mail")
    incident = make_incident(session, facts={"jobs": [waiting.id]}, affected=1)
    failed = make_job(session, "failed", queue="crm")
    failure = make_failure(session)
    make_attempt(session, failed, failure_key=failure.key, outcome="raised", ended_at=ago())
    session.commit()
    ended = {"run_again": "Run again 1…", "delete": "Delete 1…"}
    waits = {"cancel": "Cancel 1…", "discard": "Discard 1…"}
    assert _place(get, "/queues/mail", "Select all 1") == waits
    assert _place(get, "/queues/crm", "Select all that are failed") == {
        "retry": "Retry 1…",
        **ended,
    }
    failed_ones = "Select all that are failed"
    assert _place(get, f"/lifeline/failures/{failure.id}", failed_ones) == {
        "retry": "Retry 1…",
        **ended,
    }
    assert _place(get, f"/lifeline/incidents/{incident.id}", "Select all 1") == waits
    assert _place(get, "/workers", "Select its jobs") == {
        "cancel": "Cancel 1…",
        "rescue": "Rescue 1…",
    }
    assert _place(get, f"/batches/{batch.id}", "Select all") == {
        "retry": "Retry 1…",
        "run_again": "Run again 2…",
        "delete": "Delete 2…",
    }
    assert _place(get, f"/workflows/{graph.run}", "Select all 2") == {
        "retry": "Retry 1…",
        "cancel": "Cancel 1…",
        "discard": "Discard 1…",
        "skip": "Skip 2…",
        **ended,
    }


@pytest.mark.parametrize("missing", ["operation.start", "jobs.view"])
def test_a_place_has_no_link_without_the_permission(
    missing: str, get: Get, access: Access, many: None
) -> None:
    access.held.discard(missing)
    page = soup(get("/queues/mail").text)
    assert not page.select("[data-select-all]")
    assert ("needs operation.start" in _words(page)) is (missing == "operation.start")


def test_it_works_without_a_script(client: FlaskClient, session: Session, many: None) -> None:
    text = client.get("/ops/jobs/jobs?queue=mail&state=failed&limit=50&selected=all").text
    form = soup(text).select_one("form#operate")
    button = next(each for each in _bar(text).select("button") if "Retry" in each.text)
    assert button["form"] == "operate"
    fields = {each["name"]: each["value"] for each in form.select("input")}
    assert fields["queue"] == "mail"
    sent = client.post(
        form["action"],
        data={**fields, button["name"]: button["value"]},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert sent.status_code == 303
    (operation,) = session.query(Operation).all()
    assert (operation.action, operation.targets) == ("job.retry", 30)
    assert operation.query == {"queue": "mail", "state": "failed"}


def test_the_pages_and_the_refresh_keep_the_selection(client: FlaskClient, many: None) -> None:
    page = soup(client.get("/ops/jobs/jobs?state=failed&selected=all").text)
    assert "selected=all" in page.select_one("#live")["hx-get"]
    older = str(page.select_one("a[rel=next]")["href"])
    second = client.get(older)
    assert "All 30 that match" in _words(_bar(second.text))
    assert not any("selected" in str(link["href"]) for link in page.select("nav.tabs a"))
    assert client.get("/ops/jobs/jobs?selected=some").status_code == 422


@pytest.mark.parametrize("missing", ["operation.start", "job.retry"])
def test_without_a_permission_its_name_is_said(
    missing: str, get: Get, access: Access, many: None
) -> None:
    access.held.discard(missing)
    bar = _bar(get("/jobs?state=failed&selected=all").text)
    words = [_words(each) for each in bar.select("button[disabled]")]
    assert f"Retry needs {missing}" in words
    bulk = soup(get("/jobs?state=failed").text).select_one(".bulk")
    assert bool(bulk.select("[data-select-all]")) is (missing != "operation.start")
    assert ("needs operation.start" in _words(bulk)) is (missing == "operation.start")


def test_more_than_one_operation_takes_must_be_narrowed(
    get: Get, many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MOST_JOBS", 29)
    bar = _bar(get("/jobs?state=failed&selected=all").text)
    assert "Retry over 29" in [_words(each) for each in bar.select("button[disabled]")]


def test_a_search_that_finds_nothing_has_no_bar(get: Get, many: None) -> None:
    text = get("/jobs?state=canceled&selected=all").text
    assert _bar(text) is None
    assert "No job matches." in text


def test_101_chosen_rows_name_the_operation(client: FlaskClient, many: None) -> None:
    sent = client.post(
        "/ops/jobs/jobs/retry",
        data={"job": [str(n) for n in range(1, 102)]},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert sent.status_code == 422
    said = _words(soup(sent.text).find(id="dialog-page"))
    assert "At most 100 jobs at once; 101 are picked. Select all that match instead" in said
