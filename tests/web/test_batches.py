"""The pages of batches: the list, one batch, and the links to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.batches import queries
from flask_opsjobs.batches.lifecycle import STATES
from flask_opsjobs.batches.models import BatchEnds, BatchRecord
from flask_opsjobs.batches.queries import MOST_BATCHES, MOST_MEMBERS, MOST_OTHERS
from flask_opsjobs.jobs.models import Callback, Job
from flask_opsjobs.lifeline.models import LoopRun
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_batch, make_job, make_loops, make_worker

Get = Callable[..., Any]


def text_of(response: Any) -> str:
    """The text of a page, with single spaces."""
    return " ".join(soup(response.text).get_text(" ").split())


def test_without_a_batch_the_list_says_how_to_open_one(get: Get) -> None:
    assert "No batch has been opened yet" in text_of(get("/batches"))


@pytest.mark.parametrize("state", STATES)
def test_the_list_shows_each_batch_with_its_ends_and_what_is_legal(
    get: Get, session: Session, state: str
) -> None:
    batch = make_batch(session, state)
    session.commit()
    page = soup(get("/batches").text)
    (row,) = page.select("tr[data-row]")
    assert "import_prices" in row.text
    assert state in row.text
    assert "9 of 10" in row.text
    assert row.select_one("svg.stacked")["aria-label"].startswith("7 finished, 2 failed")
    buttons = {button["formaction"].rpartition("/")[2] for button in row.select("button")}
    legal = {"open": {"retry", "close", "cancel"}, "running": {"retry", "cancel"}}
    assert buttons == legal.get(state, {"retry"})
    others = [one for one in STATES if one != state]
    assert soup(get(f"/batches?state={others[0]}").text).select("tr[data-row]") == []
    assert page.select_one(f'a[href$="/batches/{batch.id}"]') is not None


def test_the_list_goes_on_with_older_batches(get: Get, session: Session) -> None:
    for number in range(MOST_BATCHES + 5):
        make_batch(session, name=f"batch {number}")
    session.commit()
    first = soup(get("/batches").text)
    assert len(first.select("tr[data-row]")) == MOST_BATCHES
    older = first.select_one('a[rel="next"]')["href"].removeprefix("/ops/jobs")
    second = soup(get(older).text)
    names = [row.select_one("a.name").text for row in second.select("tr[data-row]")]
    assert names == [f"batch {number}" for number in range(4, -1, -1)]
    assert second.find("a", string="Newest") is not None


def test_a_batch_shows_how_far_it_is_and_its_members_failed_first(
    get: Get, session: Session
) -> None:
    batch = make_batch(session, "running")
    for state in ("finished", "available", "failed", "started"):
        make_job(session, state, batch_id=batch.id)
    other = make_job(session, "failed")
    session.commit()
    response = get(f"/batches/{batch.id}")
    said = text_of(response)
    assert "9 of 10 ended" in said
    assert "a minute on average" in said
    rows = soup(response.text).select("tr[data-row]")
    assert [row.select_one(".chip").text.strip() for row in rows] == [
        "failed",
        "started",
        "available",
        "finished",
    ]
    assert str(other.id) not in [row.th.text for row in rows]
    only = soup(get(f"/batches/{batch.id}?state=failed").text).select("tr[data-row]")
    assert len(only) == 1


def test_a_state_in_which_no_member_ended_has_no_colour(get: Get, session: Session) -> None:
    batch = make_batch(session)
    session.commit()

    def colours() -> list[str]:
        parts = soup(get(f"/batches/{batch.id}").text).select(".parts li")
        return [str(part["data-is"]) for part in parts[:3]]

    assert colours() == ["finished", "failed", "none"]
    session.execute(delete(BatchEnds).where(BatchEnds.state == "failed"))
    session.commit()
    assert colours() == ["finished", "none", "none"]


def test_members_of_one_state_go_on_with_older_ones(get: Get, session: Session) -> None:
    batch = make_batch(session)
    ids = [make_job(session, "failed", batch_id=batch.id).id for _ in range(MOST_MEMBERS + 3)]
    session.commit()
    assert "choose a state to see more" in text_of(get(f"/batches/{batch.id}"))
    first = soup(get(f"/batches/{batch.id}?state=failed").text)
    older = first.select_one('a[rel="next"]')["href"].removeprefix("/ops/jobs")
    rows = soup(get(older).text).select("tr[data-row]")
    assert [int(row.th.text) for row in rows] == sorted(ids[:3], reverse=True)


def test_a_batch_shows_its_callbacks_and_what_went_wrong(get: Get, session: Session) -> None:
    job = make_job(session, "failed", task="report")
    batch = make_batch(
        session, "failed", on_end={"task": "report"}, enqueued=12, lost=3, trouble="KeyError"
    )
    gone = {"of": "batch", "of_id": batch.id, "end_no": 0, "event": "failure", "job_id": 9_999}
    told = {"of": "batch", "of_id": batch.id, "end_no": 1, "event": "end", "job_id": job.id}
    session.add_all([Callback(**gone), Callback(**told)])
    session.commit()
    said = text_of(get(f"/batches/{batch.id}"))
    assert "on_failure none 9999 removed" in said
    assert f"on_end report {job.id} failed end 1," in said
    assert "The callback of end 1 failed , so the application was not told." in said
    assert "3 lost: their rows were deleted before they ended" in said
    assert "3 of 12 members were lost. Nobody knows whether they ran, and no retry can" in said
    assert "The members of this batch cannot be counted now. KeyError" in said


def test_a_callback_that_has_not_run_says_what_it_waits_for(get: Get, session: Session) -> None:
    batch = make_batch(session, on_end={"task": "report"}, on_failure={"task": "alert"})
    session.commit()
    said = text_of(get(f"/batches/{batch.id}"))
    assert "on_failure alert waits until a member fails" in said
    assert "on_end report waits when all members have ended" in said
    assert (
        "2 of 10 members failed. The batch ends as failed when all have ended, and calls report."
        in said
    )


@pytest.mark.parametrize("state", ["finished", "canceled"])
def test_a_callback_for_failures_of_a_batch_that_ended_without_one_was_not_called(
    get: Get, session: Session, state: str
) -> None:
    batch = make_batch(session, state, enqueued=7, on_failure={"task": "alert"})
    session.execute(delete(BatchEnds).where(BatchEnds.state == "failed"))
    session.commit()
    said = text_of(get(f"/batches/{batch.id}"))
    assert "on_failure alert not called: no member failed" in said
    assert "until a member fails" not in said


def test_the_list_marks_a_batch_whose_callback_failed(get: Get, session: Session) -> None:
    told, untold = make_batch(session, "failed"), make_batch(session, "failed")
    for batch, state in ((told, "finished"), (untold, "failed")):
        job = make_job(session, state, task="report")
        session.add(Callback(of="batch", of_id=batch.id, end_no=1, event="end", job_id=job.id))
    session.commit()
    rows = soup(get("/batches").text).select("tr[data-row]")
    assert ["callback failed" in row.text for row in rows] == [True, False]


def fail_with(session: Session, batch: BatchRecord, *errors: str | None) -> None:
    """A failed member for each error; the batch counts as many."""
    session.execute(update(BatchEnds).where(BatchEnds.state == "failed").values(number=len(errors)))
    for error in errors:
        ended_by = "exhausted" if error else "deadline"
        make_job(session, "failed", batch_id=batch.id, error=error, ended_by=ended_by)
    session.commit()


def test_failures_are_grouped_by_the_kind_of_their_error(get: Get, session: Session) -> None:
    batch = make_batch(session)
    price = "ValueError: row {}: price '{}' is not a number\nline 41"
    fail_with(session, batch, price.format(3, "1,5O"), 'KeyError: "x"', price.format(12, "–"), None)
    page = get(f"/batches/{batch.id}")
    rows = soup(page.text).select("[aria-labelledby=failures] tbody tr")
    found = [(row.th.find(string=True).strip(), row.td.text) for row in rows]
    assert found == [
        ("ValueError: row …: price … is not a number", "2"),
        ("The deadline passed before it started", "1"),
        ("KeyError: …", "1"),
    ]
    assert "4 of 10 members failed, 2 of them with the same kind of error." in text_of(page)


def test_a_group_of_failures_leads_to_a_search_of_its_jobs(
    get: Get, session: Session, app: Flask, access: Access
) -> None:
    app.extensions["opsjobs"].display = Hides()
    batch = make_batch(session)
    price = "ValueError: row {}: the price '{}' with token hunter2 is no number\nline 41"
    fail_with(session, batch, price.format(3, "1,5O"), 'KeyError: "x"', price.format(12, "–"), None)
    page = soup(get(f"/batches/{batch.id}").text)
    links = page.select("[aria-labelledby=failures] tbody th a")
    addresses = [link["href"].removeprefix("/ops/jobs") for link in links]
    ids = [int(row.th.text) for row in page.select("[aria-labelledby=members] tr[data-row]")]
    newest_first = dict(zip(("deadline", "price 12", "key", "price 3"), ids, strict=True))

    def found(address: str) -> list[int]:
        return [
            int(row.select_one(".id").text)
            for row in soup(get(address).text).select("tr[data-row]")
        ]

    assert [found(address) for address in addresses] == [
        [newest_first["price 12"], newest_first["price 3"]],
        ids,  # it has no error to search for
        [newest_first["key"]],
    ]
    # Errors are payload. Without it the search finds all that failed.
    access.held.discard("payload.view")
    page = soup(get(f"/batches/{batch.id}").text)
    for link in page.select("[aria-labelledby=failures] tbody th a"):
        assert found(link["href"].removeprefix("/ops/jobs")) == ids
    access.held.discard("jobs.view")
    page = soup(get(f"/batches/{batch.id}").text)
    assert page.select("[aria-labelledby=failures] tbody a") == []


def test_arguments_of_members_are_payload_of_the_batch_and_of_the_job(
    get: Get, session: Session, app: Flask, opsjobs: OpsJobs, access: Access
) -> None:
    @opsjobs.task(redact=["card"])
    def import_row(row: int, name: str, password: str, card: str = "") -> None: ...

    app.extensions["opsjobs"].display = Hides()
    args = {"row": 7, "name": "for hunter2", "password": "geheim", "card": "4111"}
    batch = make_batch(session)
    job = make_job(session, "failed", batch_id=batch.id, task="import_row", args=args)
    make_job(session, "finished", batch_id=batch.id, args={"text": "x" * 3_000})
    session.commit()

    def cells() -> list[str]:
        rows = soup(get(f"/batches/{batch.id}").text).select("tr[data-row]")
        return [row.select_one("td.fill .mono").text.strip() for row in rows]

    assert cells() == [
        'row=7, card=[hidden: redact], name="for [hidden]", password=[hidden: key password]',
        "long: see the job",
    ]
    access.denied.add(("payload.view", f"job/{job.id}"))
    assert cells()[0] == "[hidden: needs payload.view]"
    access.denied.clear()
    access.held.discard("payload.view")
    assert cells()[0] == "[hidden: needs payload.view]"


def test_of_many_failures_the_newest_are_grouped(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_FAILURES", 2)
    batch = make_batch(session)
    fail_with(session, batch, "KeyError: 1", "KeyError: 2", "ValueError: 3")
    said = text_of(get(f"/batches/{batch.id}"))
    assert "of the newest 2" in said
    assert "3 of 10 members failed." in said


class Hides(ShowAll):
    """Hides a token in every text, and passwords."""

    def is_hidden_key(self, key: str) -> bool:
        return key == "password"

    def clean_text(self, text: str) -> str:
        return text.replace("hunter2", "[hidden]")


def test_errors_of_groups_pass_the_display_policy(
    get: Get, session: Session, access: Access, app: Flask
) -> None:
    app.extensions["opsjobs"].display = Hides()
    batch = make_batch(session)
    fail_with(session, batch, "ValueError: the token hunter2 was refused")
    page = get(f"/batches/{batch.id}")
    assert "hunter" not in page.text
    assert text_of(page).count("was refused") == 2
    access.held.discard("payload.view")
    assert "was refused" not in get(f"/batches/{batch.id}").text


def test_an_open_batch_says_that_nobody_has_closed_it(get: Get, session: Session) -> None:
    batch = make_batch(session, "open")
    job = make_job(session, batch_id=batch.id, queue="nobody-listens")
    session.commit()
    page = get(f"/batches/{batch.id}")
    said = text_of(page)
    assert "The application has opened it, and has not closed it yet" in said
    assert f"opsjobs.batch(id={batch.id}).close()" in said
    assert f"The oldest member that is available is job {job.id}" in said
    assert "no_live_worker" in said
    assert soup(get(f"/batches/{make_final(session)}").text).select("[aria-labelledby=why]") == []


def make_final(session: Session) -> int:
    """The id of a batch that has ended."""
    batch = make_batch(session, "finished")
    session.commit()
    return batch.id


def test_it_says_how_long_it_takes_unless_something_holds_its_members(
    get: Get, session: Session, app: Flask
) -> None:
    make_loops(session)
    fold = {"loop": "fold", "process": "web-1:17", "every_seconds": 600, "took_seconds": 0.01}
    session.add(LoopRun(**fold, started_at=ago(hours=3), last_at=ago(seconds=1)))
    make_worker(session, queues=["imports"])
    batch = make_batch(session)
    make_job(session, batch_id=batch.id, queue="imports")
    make_job(session, "started", batch_id=batch.id, queue="imports", started_at=ago(seconds=1))
    session.commit()
    said = text_of(get(f"/batches/{batch.id}"))
    assert "a minute on average, about 1 min 6 s left" in said
    assert "The batch ends as failed in about 1 min 6 s" in said
    assert "1 running 0 waiting" in said
    Operator(app.extensions["opsjobs"]).pause("imports", actor="anna", reason="wrong prices")
    said = text_of(get(f"/batches/{batch.id}"))
    assert "a minute on average" in said
    assert "left" not in said.partition("on average")[2].partition("7 finished")[0]
    assert "queue_paused" in said
    Operator(app.extensions["opsjobs"]).resume("imports", actor="anna", reason="right prices")
    assert "on average, about" in text_of(get(f"/batches/{batch.id}"))
    session.execute(
        update(LoopRun).where(LoopRun.loop == "fold").values(last_at=ago(hours=2), every_seconds=1)
    )
    session.commit()
    assert "on average, about" not in text_of(get(f"/batches/{batch.id}"))


def test_the_list_says_how_long_it_takes_while_a_member_runs(get: Get, session: Session) -> None:
    running, waiting = make_batch(session, name="running"), make_batch(session, name="waiting")
    make_job(session, "started", batch_id=running.id)
    make_job(session, batch_id=waiting.id)
    session.commit()
    rows = soup(get("/batches").text).select("tr[data-row]")
    took = [row.select_one('[data-label="took"]').get_text(" ") for row in rows]
    assert ["left" in text for text in took] == [False, True]
    assert "so far, about 1 min 6 s left" in took[1]
    running.trouble = "KeyError"
    session.commit()
    assert "left" not in soup(get("/batches").text).select("tr[data-row]")[1].text


def test_the_pace_of_a_batch_that_was_reopened_is_not_known(get: Get, session: Session) -> None:
    batch = make_batch(session, end_no=1)
    session.commit()
    assert "on average" not in text_of(get(f"/batches/{batch.id}"))


def test_an_open_batch_of_which_nothing_is_left_has_no_pace(get: Get, session: Session) -> None:
    batch = make_batch(session, "open", enqueued=9)
    session.commit()
    said = text_of(get(f"/batches/{batch.id}"))
    assert "9 of 9 ended" in said
    assert "on average" not in said
    assert "so far" in text_of(get("/batches"))


def test_other_batches_stand_beside(get: Get, session: Session) -> None:
    batches = [make_batch(session, name=f"batch {number}") for number in range(MOST_OTHERS + 2)]
    session.commit()
    page = soup(get(f"/batches/{batches[-1].id}").text)
    names = [link.text for link in page.select("[aria-labelledby=others] a.name")]
    assert names == [f"batch {number}" for number in range(MOST_OTHERS, 0, -1)]


@pytest.mark.parametrize("action", [action.short_name for action in actions_of("batch")])
def test_an_action_is_carried_out_once_and_can_be_previewed_again(
    client: FlaskClient, session: Session, action: str
) -> None:
    batch = make_batch(session, "open")
    session.commit()
    path, headers = f"/ops/jobs/batches/{batch.id}/{action}", {"Sec-Fetch-Site": "same-origin"}
    preview = client.post(path, headers=headers).location
    form = soup(client.get(preview).text).find(id="dialog-page").form
    fields = {str(field["name"]): str(field.get("value", "")) for field in form.select("[name]")}
    fields["reason"] = "a wrong file, OPS-2291"
    done = client.post(str(form["action"]), data=fields, headers=headers)
    assert soup(client.get(done.location).text).find(id="dialog-page").has_attr("data-done")
    again = client.post(str(form["action"]), data=fields, headers=headers)
    assert again.status_code == 409
    assert "was carried out already" in text_of(again)
    assert soup(again.text).find(id="dialog-page").form["action"] == path


def test_a_batch_that_is_being_canceled_says_by_whom_and_offers_nothing(
    get: Get, session: Session
) -> None:
    batch = make_batch(session)
    batch.cancel_requested_at, batch.cancel_requested_by = batch.created_at, "anna"
    batch.cancel_reason = "a wrong file"
    session.commit()
    response = get(f"/batches/{batch.id}")
    assert "by anna: “a wrong file”" in text_of(response)
    assert soup(response.text).select("#part header button.btn") == []


def test_meta_is_payload(get: Get, session: Session, access: Access) -> None:
    batch = make_batch(session)
    session.commit()
    assert "march.csv" in get(f"/batches/{batch.id}").text
    access.held.discard("payload.view")
    assert "march.csv" not in get(f"/batches/{batch.id}").text


@pytest.mark.parametrize("path", ["9", "x", "0x7", "9" * 40, "7/live"])
def test_no_such_batch(get: Get, path: str) -> None:
    assert "There is no batch" in get(f"/batches/{path}", 404).text


@pytest.mark.parametrize("query", ["state=odd", "before=x", "before=" + "9" * 40, "state=%00"])
def test_an_unreadable_address_says_so(get: Get, session: Session, query: str) -> None:
    batch = make_batch(session)
    session.commit()
    for path in ("/batches", f"/batches/{batch.id}"):
        get(f"{path}?{query}", 422)


def test_a_job_links_to_its_batch_for_those_who_may_open_it(
    get: Get, jobs: dict[str, Job], access: Access
) -> None:
    job = jobs["failed"]
    link = f'a[href$="/batches/{job.batch_id}"]'
    assert soup(get(f"/jobs/{job.id}").text).select_one(link) is not None
    assert soup(get(f"/jobs/{jobs['started'].id}").text).find("dt", string="Batch") is None
    access.held.discard("batches.view")
    page = soup(get(f"/jobs/{job.id}").text)
    assert page.select_one(link) is None
    assert page.find("dt", string="Batch").find_next("dd").text.strip() == str(job.batch_id)


def test_a_denied_batch_is_closed(get: Get, session: Session, access: Access) -> None:
    batch = make_batch(session)
    session.commit()
    access.denied.add(("batches.view", f"batch/{batch.id}"))
    get(f"/batches/{batch.id}", 403)
    get(f"/batches/0{batch.id}", 403)
