"""Actions on the pages: a plan is previewed, gets a reason, and is done or refused,
with and without a script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.actions import execution
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.host import MOST_ACTIONS, Host
from flask_opsjobs.jobs.lifecycle import ENDED_BY, MANAGED_STATES
from flask_opsjobs.jobs.models import Job, UniqueLock
from tests.support.waiting import wait_until
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import EXPIRE_PREVIEWS, ago, make_job, make_limiter, make_loops, make_worker

REASON = "the vendor answers again, OPS-2291"
# A repair has a button only where its fault is: tests/actions/test_rescue.py and test_recall.py.
JOB_ACTIONS = [
    action for action in ACTIONS.values() if action.domain == "job" and not action.is_repair
]
BACK = "/ops/jobs/jobs?state=failed"

Post = Callable[..., Any]


@pytest.fixture
def post(client: FlaskClient) -> Post:
    """Sends a form from a page of ours: `post("/jobs/1/retry", 303, back=…)`; `script` as ours does."""

    def post(path: str, status: int, *, script: bool = False, **data: Any) -> Any:
        headers = {"Sec-Fetch-Site": "same-origin"} | ({"HX-Request": "true"} if script else {})
        response = client.post(f"/ops/jobs{path}", data=data, headers=headers)
        assert response.status_code == status, response.text
        return response

    return post


@pytest.fixture
def preview(client: FlaskClient, post: Post) -> Callable[..., str]:
    """Starts an action; the path of its preview below the prefix."""

    def preview(path: str, **data: Any) -> str:
        location: str = post(path, 303, **data).location
        return location.removeprefix("/ops/jobs")

    return preview


def _dialog_page(response: Any) -> Any:
    return soup(response.text).find(id="dialog-page")


def _words(response: Any) -> str:
    return " ".join(_dialog_page(response).text.split())


def _buttons(response: Any) -> list[str]:
    """What the form of the preview may be sent by."""
    return [button.text for button in _dialog_page(response).select("form button")]


def _sent(response: Any) -> tuple[str, dict[str, str]]:
    """Where the preview's form goes, and what it holds."""
    form = _dialog_page(response).form
    held = {str(field["name"]): str(field.get("value", "")) for field in form.select("[name]")}
    if form.textarea is not None:
        held["reason"] = form.textarea.text
    return str(form["action"]).removeprefix("/ops/jobs"), held


def _state(session: Session, job: Job) -> str:
    session.rollback()
    asked = text("SELECT state FROM opsjobs.jobs WHERE id = :id")
    return str(session.execute(asked, {"id": job.id}).scalar_one())


@pytest.fixture
def failed(session: Session, host: Host) -> Job:
    job = make_job(session, "failed")
    session.commit()
    return job


def test_a_preview_says_all_before_anything_is_done(
    get: Any, preview: Any, failed: Job, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry", back=BACK)
    page = get(path)
    tree, words = soup(page.text), _words(page)
    assert tree.h1.text == f"Retry job {failed.id}"
    first = tree.select_one("table.diff tbody tr")
    assert [cell.text.strip() for cell in first.find_all(["th", "td"])] == [
        "state",
        "failed",
        "available",
    ]
    assert "Risk: The function runs once more" in words
    assert "At least 8 characters." in words
    assert "Made by tester, good until" in words
    assert "You can hand this address to a colleague who may do job.retry" in words
    assert tree.select_one("#dialog-page p.mute a")["href"] == f"/ops/jobs{path.partition('?')[0]}"
    assert tree.select_one("textarea[name=reason]")["minlength"] == "8"
    assert [b.text for b in tree.select("#dialog-page button")] == [f"Retry job {failed.id}"]
    assert tree.select_one("#dialog-page a[data-close]")["href"] == BACK
    assert _state(session, failed) == "failed"


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/queues/default/pause", {}),
        ("/queues/default/drain", {}),
        ("/tasks/send_invoice/pause", {}),
        ("/limiters/customer-api/cooldown", {"minutes": "5"}),
    ],
)
def test_a_preview_says_once_that_running_jobs_continue(
    path: str, data: dict[str, str], get: Any, preview: Any, failed: Job, session: Session
) -> None:
    make_limiter(session)
    session.commit()
    assert _words(get(preview(path, **data))).lower().count("running jobs continue") == 1


@pytest.mark.parametrize(
    "ended_by", [ended_by for ended_by in ENDED_BY if ended_by not in ("returned", "unseen")]
)
def test_a_preview_says_in_the_words_of_the_job_s_page_how_it_ended(
    get: Any, post: Post, preview: Any, session: Session, host: Host, ended_by: str
) -> None:
    state = "canceled" if ended_by == "canceled" else "failed"
    job = make_job(session, state, ended_by=ended_by)
    session.commit()
    words = ENDED_BY[ended_by]
    assert words[0].upper() + words[1:] in " ".join(soup(get(f"/jobs/{job.id}").text).text.split())
    shown = get(preview(f"/jobs/{job.id}/retry"))
    rows = soup(shown.text).select("table.diff tbody tr")
    cells = [[cell.text.strip() for cell in row.find_all(["th", "td"])] for row in rows]
    (ended,) = [before for name, before, _ in cells if name == "ended"]
    assert ended == f"{words}, {job.ended_at:%Y-%m-%d %H:%M:%S} UTC"
    # And so says who executes it after somebody else did.
    url, form = _sent(shown)
    Operator(host).retry(job.id, actor="l.brandt", reason=REASON)
    drifted = _dialog_page(post(url, 409, **form | {"reason": REASON})).select("tbody tr")
    lines = [[cell.text.strip() for cell in row.find_all(["th", "td"])] for row in drifted]
    assert [f"job {job.id} ended by", words, "nothing"] in lines


def test_a_plain_form_is_led_to_its_receipt(
    get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry", back=BACK)
    url, form = _sent(get(path))
    receipt = post(url, 303, **form | {"reason": REASON}).location.removeprefix("/ops/jobs")
    assert _state(session, failed) != "failed"
    page = get(receipt)
    (audit,) = _dialog_page(page).select("a[href^='/ops/jobs/audit/']")
    assert REASON in get(str(audit["href"]).removeprefix("/ops/jobs")).text
    assert _dialog_page(page).select_one("a[data-close]")["href"] == BACK
    assert not _dialog_page(page).select("textarea, .foot button")


def test_a_script_gets_the_changed_preview_alone(
    get: Any, post: Post, preview: Any, failed: Job
) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    response = post(url, 200, script=True, **form | {"reason": REASON})
    assert "<!doctype" not in response.text
    assert _dialog_page(response).has_attr("data-done")
    assert _dialog_page(response).select("[data-toast] a")


def test_after_a_decision_the_next_poll_has_the_true_badge(
    get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    make_loops(session)
    session.commit()
    badge = soup(get("/jobs").text).select_one("nav.side #badge-jobs")
    assert badge.text == "1 needs review"
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    post(url, 200, script=True, **form | {"reason": REASON})
    badge = soup(get("/jobs/live").text).select_one("#badge-jobs[hx-swap-oob]")
    assert badge.has_attr("hidden")
    assert badge.text == ""


@pytest.mark.parametrize("reason", ["", " " * 40, "too few", "\u200b" * 20, "x" * 2_001])
def test_a_reason_that_is_none_is_asked_for_again(
    reason: str, get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry")
    url, form = _sent(get(path))
    for script in (False, True):
        response = post(url, 422, script=script, **form | {"reason": reason})
        assert _dialog_page(response).select_one("textarea").text.strip() == reason.strip()[:2_000]
        assert _dialog_page(response).select_one("[aria-invalid]")
        assert "2,000 characters" in _words(response) or "8 characters" in _words(response)
    assert _state(session, failed) == "failed"
    post(url, 303, **_sent(response)[1] | {"reason": REASON})  # the same token is still good


def test_no_answer_to_a_long_reason_repeats_it(
    get: Any, post: Post, preview: Any, failed: Job, host: Host
) -> None:
    reason = "x" * 60_000
    path = preview(f"/jobs/{failed.id}/retry")
    url, form = _sent(get(path))
    for script in (False, True):
        response = post(url, 422, script=script, **form | {"reason": reason})
        assert len(response.text) < 20_000
        assert "the field keeps the first 2,000 of 60,000" in _words(response)
    started = post(f"/jobs/{failed.id}/retry", 200, reason=reason)  # as a refused preview asks anew
    assert len(started.text) < 20_000
    assert _dialog_page(started).select_one("textarea").text.strip() == reason[:2_000]


def test_a_reason_of_100_kilobytes_is_refused_unread(
    get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    response = post(url, 413, **form | {"reason": "x" * 100_000})
    assert "A reason or a note has at most 2,000 characters" in _words(response)
    assert _state(session, failed) == "failed"


def test_what_has_drifted_is_said_and_a_new_preview_is_one_click_away(
    get: Any, post: Post, preview: Any, failed: Job, host: Host, session: Session
) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry", back=BACK)))
    Operator(host).run("job.retry", [f"job/{failed.id}"], actor="l.brandt", reason=REASON)
    Operator(host).run("job.cancel", [f"job/{failed.id}"], actor="l.brandt", reason=REASON)
    response = post(url, 409, **form | {"reason": REASON})
    assert soup(response.text).h1.text == "Nothing was done: something has changed"
    cells = [td.text.strip() for td in _dialog_page(response).select("tbody td")]
    assert {"failed", "canceled"} <= set(cells)
    again, held = _sent(response)
    assert held["reason"] == REASON
    assert "drifted" in _words(response)
    fresh = post(again, 200, **held)  # with what was typed, which stands in no address
    assert soup(fresh.text).h1.text == f"Retry job {failed.id}"
    url, form = _sent(fresh)
    assert form["reason"] == REASON
    post(url, 303, **form)
    assert _state(session, failed) != "canceled"


def test_a_preview_is_used_once(get: Any, post: Post, preview: Any, failed: Job) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    post(url, 303, **form | {"reason": REASON})
    for script in (False, True):
        response = post(url, 409, script=script, **form | {"reason": REASON})
        assert "this preview was used already" in _words(response)
        assert "spent" in _words(response)


def test_an_expired_preview_says_so_and_does_nothing(
    get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry")
    url, form = _sent(get(path))
    session.execute(text(EXPIRE_PREVIEWS))
    session.commit()
    page = get(path)
    assert "This preview has expired" in _words(page)
    assert _buttons(page) == ["Preview again"]
    assert "expired" in _words(post(url, 409, **form | {"reason": REASON}))
    assert _state(session, failed) == "failed"
    assert "token" in _sent(post(_sent(page)[0], 200, **_sent(page)[1] | {"reason": "so far"}))[1]


def test_a_permission_lost_meanwhile_is_named(
    get: Any, post: Post, preview: Any, failed: Job, access: Access, session: Session
) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    access.held -= {"job.retry"}
    response = post(url, 403, script=True, **form | {"reason": REASON})
    assert "job.retry" in _words(response)
    assert _state(session, failed) == "failed"


def test_a_preview_is_handed_on(
    get: Any, post: Post, preview: Any, failed: Job, access: Access, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry").partition("?")[0]
    own, own_form = _sent(get(path))
    access.actor = "ben"
    page = get(path)
    assert "Made by tester, good until" in _words(page)
    # Ben, who has meanwhile signed in, sends the form that tester had open.
    assert "its form was opened under another name" in post(own, 404, **own_form).text
    url, form = _sent(page)
    assert form["token"] != own_form["token"]
    post(url, 303, **form | {"reason": REASON})
    assert _state(session, failed) == "available"
    access.actor = "tester"
    assert f"Retry job {failed.id}: done by ben." in _words(get(path))
    assert "this preview was used already" in _words(
        post(own, 409, **own_form | {"reason": REASON})
    )


def test_a_preview_opens_for_a_colleague_who_may_do_it_to_all_that_it_tells_of(
    client: FlaskClient, post: Post, session: Session, access: Access, host: Host
) -> None:
    ids = [make_job(session, "failed").id for _ in range(3)]
    session.commit()
    access.denied = {("job.retry", f"job/{ids[2]}")}
    path = post("/jobs/retry", 303, job=ids).location.partition("?")[0]
    access.actor = "ben"
    # Of the job on which its maker has no permission it tells nothing, so ben may open it.
    assert client.get(path).status_code == 200
    for denied in ids[:2]:
        access.denied.add(("job.retry", f"job/{denied}"))
        response = client.get(path)
        assert response.status_code == 403
        assert "job.retry" in response.text
        access.actor = "tester"
        assert client.get(path).status_code == 200 if denied == ids[0] else 403
        access.actor = "ben"
        access.denied.discard(("job.retry", f"job/{ids[0]}"))


def test_two_hundred_posts_of_a_person_without_any_permission_write_no_audit(
    get: Any, post: Post, preview: Any, failed: Job, access: Access, session: Session, caplog: Any
) -> None:
    theirs, their_form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    access.actor = "nobody"
    own, own_form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    access.held = set()
    caplog.clear()
    tries = [
        (own, own_form, 403),
        (theirs, their_form, 404),
        ("/previews/999/execute", own_form, 404),
    ]
    for number in range(200):
        url, form, status = tries[number % len(tries)]
        post(url, status, **form | {"reason": REASON * 40})
    assert session.execute(text("SELECT count(*) FROM opsjobs.audit_events")).scalar_one() == 0
    refused = [line for line in caplog.messages if line.startswith("nobody was refused")]
    assert len(refused) == 200
    assert _state(session, failed) == "failed"


@pytest.mark.sessions
def test_150_posts_at_once_open_as_many_connections_as_actions_are_allowed(
    app: Flask,
    get: Any,
    preview: Any,
    failed: Job,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whoever is let in is patient: the others may take longer to be answered than it waits otherwise.
    monkeypatch.setattr(execution, "WAIT_SECONDS", 600)
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    headers = {"Sec-Fetch-Site": "same-origin"}

    def send() -> Any:
        sent = form | {"reason": REASON}
        return app.test_client().post(f"/ops/jobs{url}", data=sent, headers=headers)

    # Whoever is let in waits for the preview's row, until all the others are answered.
    session.execute(text("SELECT 1 FROM opsjobs.previews FOR UPDATE"))
    count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    before = session.scalar(count)
    with ThreadPoolExecutor(150) as threads:
        sent = [threads.submit(send) for _ in range(150)]
        wait_until(lambda: sum(one.done() for one in sent) == 150 - MOST_ACTIONS, timeout=60)
        assert session.scalar(count) <= before + MOST_ACTIONS
        busy = next(one for one in sent if one.done()).result()
        session.rollback()
        answers = Counter(one.result().status_code for one in sent)
    assert answers == {503: 150 - MOST_ACTIONS, 303: 1, 409: MOST_ACTIONS - 1}
    assert busy.headers["Retry-After"] == "2"
    assert "This process already runs 4 operators' actions" in _words(busy)
    assert _state(session, failed) == "available"


def test_without_the_head_of_the_audit_nothing_is_done_and_said_why(
    get: Any, post: Post, preview: Any, failed: Job, session: Session
) -> None:
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    session.execute(text("DELETE FROM opsjobs.audit_head"))
    session.commit()
    assert "audit_head has lost its one row" in _words(post(url, 503, **form | {"reason": REASON}))
    assert _state(session, failed) == "failed"


def test_what_somebody_else_holds_is_said_so(
    get: Any, post: Post, preview: Any, failed: Job, session: Session, monkeypatch: Any
) -> None:
    monkeypatch.setattr(execution, "WAIT_SECONDS", 1)
    url, form = _sent(get(preview(f"/jobs/{failed.id}/retry")))
    session.execute(text("SELECT 1 FROM opsjobs.jobs WHERE id = :id FOR UPDATE"), {"id": failed.id})
    assert "another transaction has locked a row" in _words(
        post(url, 503, **form | {"reason": REASON})
    )
    session.rollback()


def test_a_denied_action_names_its_permission_and_makes_no_preview(
    get: Any, post: Post, failed: Job, access: Access, session: Session
) -> None:
    access.held -= {"job.delete"}
    assert "job.delete" in _words(post(f"/jobs/{failed.id}/delete", 403, script=True))
    assert "job.delete" in _words(post("/jobs/delete", 403, job=str(failed.id)))
    assert session.execute(text("SELECT count(*) FROM opsjobs.previews")).scalar_one() == 0


def test_a_token_is_good_for_its_preview_and_its_person_alone(
    get: Any, post: Post, preview: Any, failed: Job, access: Access, session: Session
) -> None:
    path = preview(f"/jobs/{failed.id}/retry")
    url, form = _sent(get(path))
    access.actor = "l.brandt"
    post(url, 404, **form | {"reason": REASON})
    access.actor = "tester"
    for token in ("", "garbage", form["token"] + "0", "\x00", "é" * 50):
        post(url, 404, **form | {"reason": REASON, "token": token})
    assert _state(session, failed) == "failed"
    post(url, 303, **form | {"reason": REASON})


def test_a_preview_is_readable_while_its_action_is_permitted(
    get: Any, post: Post, preview: Any, session: Session, access: Access, caplog: Any
) -> None:
    one, two = (make_job(session, "failed") for _ in range(2))
    session.commit()
    single = preview(f"/jobs/{one.id}/retry")
    many = preview("/jobs/retry", job=[str(one.id), str(two.id)])
    access.denied.add(("job.retry", f"job/{one.id}"))
    denied = get(single, 403)
    assert "You do not have the permission job.retry" in _words(denied)
    assert "available" not in _words(denied), "nothing of the plan is told"
    assert "tester was denied job.retry on /ops/jobs/previews/" in caplog.text
    assert "Retry 2 jobs" in _words(get(many))
    access.denied.add(("job.retry", f"job/{two.id}"))
    get(many, 403)
    access.denied.clear()
    get(single)


@pytest.mark.parametrize("path", ["0", "99999999", "9223372036854775808", "1e3", "-1", "x"])
def test_a_preview_that_is_none_is_not_found(path: str, get: Any, post: Post) -> None:
    get(f"/previews/{path}", 404)
    assert post(f"/previews/{path}/execute", 404, reason=REASON, token="x")


@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
@pytest.mark.parametrize("state", MANAGED_STATES)
def test_every_action_in_every_state_has_a_button_or_says_why_not(
    state: str, action: Any, get: Any, preview: Any, session: Session
) -> None:
    job = make_job(session, state)
    session.commit()
    params = {"due_at": "2999-01-01T09:00", "priority": "1"}
    page = get(preview(f"/jobs/{job.id}/{action.short_name}", **params))
    buttons = _buttons(page)
    if state in action.sources:
        assert len(buttons) == 1
        assert str(job.id) in buttons[0]
    else:
        assert buttons == []
        assert soup(page.text).h1.text.startswith("Nothing to do: ")
        assert f"it is {state}" in _words(page)


def test_a_due_time_is_shown_before_and_after_and_kept_for_another_try(
    get: Any, post: Post, preview: Any, session: Session, host: Host
) -> None:
    job = make_job(session, "scheduled")
    session.commit()
    path = preview(f"/jobs/{job.id}/reschedule", due_at="2999-01-01T09:00")
    page = get(path)
    rows = soup(page.text).select("table.diff tbody tr")
    assert [cell.text.strip() for cell in rows[0].find_all(["th", "td"])] == [
        "due",
        f"{job.due_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "2999-01-01 09:00:00 UTC",
    ]
    assert len(rows) == 1
    Operator(host).reschedule(job.id, None, actor="l.brandt", reason=REASON)
    place, held = _sent(page)
    refused = post(place, 409, **{**held, "reason": REASON})
    assert "changed since the preview" in _words(refused)
    again, fields = _sent(refused)
    shown = get(preview(again, job=fields["job"], due_at=fields["due_at"]))
    assert "2999-01-01 09:00:00 UTC" in _words(shown)
    place, held = _sent(shown)
    post(place, 303, **{**held, "reason": REASON})
    assert _state(session, job) == "scheduled"


@pytest.mark.parametrize("due_at", ["", "tomorrow", "2999-13-01T00:00"])
def test_a_due_time_that_cannot_be_read_is_told(post: Post, session: Session, due_at: str) -> None:
    job = make_job(session, "scheduled")
    session.commit()
    told = post(f"/jobs/{job.id}/reschedule", 422, due_at=due_at)
    assert "due_at is now, or a time up to the year 9000" in " ".join(told.text.split())


def test_a_job_that_is_not_there_says_so(get: Any, preview: Any, post: Post) -> None:
    assert "Nothing to do" in _words(get(preview("/jobs/987654/retry")))
    post("/jobs/seven/retry", 404)


# --- many at once


def test_many_are_told_once_and_the_skipped_with_their_reason(
    get: Any, post: Post, preview: Any, session: Session
) -> None:
    fit = [make_job(session, "failed") for _ in range(5)]
    odd = [make_job(session, "started"), make_job(session, "started"), make_job(session, "queued")]
    session.commit()
    page = get(preview("/jobs/retry", job=[str(job.id) for job in fit + odd]))
    assert soup(page.text).h1.text == "Retry 8 jobs"
    assert _dialog_page(page).button.text == "Retry 5 jobs"
    states = _dialog_page(page).select_one("table.diff tbody tr")
    assert [cell.text.strip() for cell in states.find_all(["th", "td"])][:3] == [
        "state",
        "5",
        "failed",
    ]
    skipped = [
        " ".join(row.text.split())
        for row in _dialog_page(page).select("section[aria-labelledby=preview-skipped] tbody tr")
    ]
    assert sorted(skipped) == [
        f"1 it is queued: {odd[2].id} illegal",
        f"2 it is started: {odd[0].id}, {odd[1].id} illegal",
    ]
    url, form = _sent(page)
    done = post(url, 200, script=True, **form | {"reason": REASON})
    assert "3 skipped" in _words(done)
    assert all(_state(session, job) != "failed" for job in fit)


def test_selected_workers_are_drained_by_one_plan(
    get: Any, post: Post, preview: Any, session: Session
) -> None:
    for name in ("web-1", "web-2", "web-3"):
        make_worker(session, name=name)
    make_worker(session, name="web-4", drain_requested_at=ago(seconds=9), drain_requested_by="anna")
    session.commit()
    page = soup(get("/workers").text)
    boxes = page.select('#part input[name="worker"]')
    assert [(box["value"], box["data-pick"]) for box in boxes] == [
        ("web-1", "alive"),
        ("web-2", "alive"),
        ("web-3", "alive"),
    ]
    button = page.select_one(".head .actions button")
    assert button.text.strip() == "Drain many…"
    assert (button["formaction"], button["data-bulk"]) == ("/ops/jobs/workers/drain", "alive late")
    path = preview("/workers/drain", worker=["web-1", "web-2", "web-4"])
    shown = get(path)
    assert "Drain 3 workers" in _words(shown)
    assert "anna has already asked worker web-4 to leave" in _words(shown)
    url, form = _sent(shown)
    done = post(url, 200, script=True, **form | {"reason": REASON})
    assert "2 done, 1 skipped" in _words(done)
    drained = text("SELECT name FROM opsjobs.workers WHERE drain_requested_at IS NOT NULL")
    session.rollback()
    assert set(session.scalars(drained)) == {"web-1", "web-2", "web-4"}
    # The same preview again: it was used. Another one asks for the same workers.
    spent = _dialog_page(post(url, 409, script=True, **form | {"reason": REASON}))
    (again,) = spent.select('form[action="/ops/jobs/workers/drain"]')
    fields = [field["value"] for field in again.select('[name="worker"]')]
    assert fields == ["web-1", "web-2", "web-4"]
    assert "No worker is picked." in _words(post("/workers/drain", 422))


@pytest.mark.parametrize(
    ("word", "path", "after"),
    [
        ("drain", "/workers/drain", "stopped, when its jobs have ended"),
        ("stop", "/workers/stop?grace=0", "stopped, at once"),
    ],
)
def test_all_workers_of_a_machine_or_of_a_queue_leave_by_one_plan(
    get: Any, post: Post, preview: Any, session: Session, word: str, path: str, after: str
) -> None:
    make_worker(session, name="web-1", host="alpha", queues=["mail"])
    make_worker(session, name="web-2", host="beta", queues=["mail", "slow"])
    make_worker(session, name="web-3", host="beta", queues=["slow"])
    make_worker(session, name="rq-1", host="beta", queues=["mail"], kind="plain")
    session.commit()
    (row,) = soup(get("/workers").text).select("[aria-labelledby=machines] tr:has([value=beta])")
    assert " ".join(row.text.split()).startswith("beta 2 and 1 plain, below")
    # On a phone a label stands before its cell.
    labels = [cell.get("data-label") for cell in row.select("td")]
    assert labels == ["workers", None, None]
    button = f'button[formaction="/ops/jobs{path}"]'
    buttons = soup(get("/workers").text).select(f"[aria-labelledby=machines] {button}")
    assert [(each["name"], each["value"]) for each in buttons] == [
        ("host", "alpha"),
        ("host", "beta"),
    ]
    (of_queue,) = soup(get("/queues/mail").text).select(f"[aria-labelledby=listeners] {button}")
    assert (of_queue["name"], of_queue["value"]) == ("queue", "mail")
    for field, named in (("host=beta", "web-2 web-3"), ("queue=mail", "web-1 web-2")):
        shown = get(preview(path, **dict([field.split("=")])))
        assert f"{word.title()} 2 workers" in _words(shown)
        assert "skipped" not in _words(shown)
        assert "Each of them: it has 0 jobs now" in _words(shown)
        assert named in _words(shown)
        assert after in _words(shown)
    refused = _words(post(path, 422, host="gamma"))
    assert "runs on gamma: see flask opsjobs workers." in refused


@pytest.mark.parametrize(
    ("picked", "said"),
    [
        ([], "No job is picked."),
        (["1", "seven"], "job: 'seven' names no job."),
        (["-1"], "names no job"),
        (["9" * 30], "names no job"),
        (["1 OR 1=1"], "names no job"),
        ([str(number) for number in range(1, 102)], "At most 100 jobs at once; 101 are picked."),
    ],
)
def test_a_selection_that_makes_no_sense_is_named(picked: list[str], said: str, post: Post) -> None:
    assert said in _words(post("/jobs/retry", 422, job=picked))
    assert said in _words(post("/jobs/retry", 422, script=True, job=picked))


def test_the_same_job_picked_twice_is_one(get: Any, preview: Any, failed: Job) -> None:
    page = get(preview("/jobs/retry", job=[str(failed.id)] * 3))
    assert soup(page.text).h1.text == f"Retry job {failed.id}"


# --- where one comes from


@pytest.mark.parametrize(
    ("back", "referrer", "found"),
    [
        (BACK, "http://localhost/ops/jobs/workers", BACK),
        ("", "http://localhost/ops/jobs/workers?x=1", "/ops/jobs/workers?x=1"),
        ("", "http://evil.example/ops/jobs/workers", "/ops/jobs"),
        ("https://evil.example/", "", "/ops/jobs"),
        ("//evil.example", "", "/ops/jobs"),
        ("/ops/jobs/../../elsewhere", "", "/ops/jobs"),
        ("/ops/jobs/%2e./x", "", "/ops/jobs"),
        ("javascript:alert(1)", "", "/ops/jobs"),
        ("/elsewhere", "", "/ops/jobs"),
    ],
)
def test_the_way_back_is_a_page_of_ours(
    back: str, referrer: str, found: str, client: FlaskClient, failed: Job
) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Referer": referrer}
    made = client.post(f"/ops/jobs/jobs/{failed.id}/retry", data={"back": back}, headers=headers)
    page = client.get(made.location)
    assert _dialog_page(page).select_one("a[data-close]")["href"] == found
    evil = client.get(made.location.partition("?")[0] + "?back=https://evil.example/")
    assert _dialog_page(evil).select_one("a[data-close]")["href"] == "/ops/jobs"


# --- what stands in the way


def test_an_action_without_a_database_says_so(make_app: Callable[..., Flask]) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    client = app.test_client()
    for path in ("/jobs/1/retry", "/previews/1/execute"):
        response = client.post(f"/ops/jobs{path}", headers={"Sec-Fetch-Site": "same-origin"})
        assert response.status_code == 503
        assert "does not answer" in response.text


def test_an_action_from_another_site_is_refused(client: FlaskClient, failed: Job) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        response = client.post(f"/ops/jobs/jobs/{failed.id}/retry", headers=headers)
        assert response.status_code == 403
        assert "A page of another site sent this change" in _words(response)


def test_names_pass_the_display_policy(make_app: Callable[..., Flask], session: Session) -> None:
    class Hides:
        def is_hidden_key(self, key: str) -> bool:
            return True

        def clean_text(self, text: str) -> str:
            return text.replace("send_invoice", "[hidden]")

    job = make_job(session, "failed")
    session.commit()
    client = make_app(display=Hides()).test_client()
    headers = {"Sec-Fetch-Site": "same-origin"}
    made = client.post(f"/ops/jobs/jobs/{job.id}/retry", headers=headers)
    assert "send_invoice" not in client.get(made.location).text


def test_the_notes_of_many_are_merged(get: Any, preview: Any, session: Session) -> None:
    deadlines = [datetime(2099, 1, day, tzinfo=UTC) for day in (3, 2, 4)]
    bound = [make_job(session, "failed", deadline_at=deadline) for deadline in deadlines]
    free = [make_job(session, "failed") for _ in range(2)]
    session.commit()
    words = _words(get(preview("/jobs/retry", job=[str(job.id) for job in bound + free])))
    assert "3 must start before their deadlines, the first at 2099-01-02 00:00:00 UTC" in words
    assert "its deadline" not in words
    words = _words(get(preview("/jobs/retry", job=[str(job.id) for job in [bound[0], *free]])))
    assert "1 of them: it must start before its deadline, 2099-01-03 00:00:00 UTC" in words
    alone = _words(get(preview(f"/jobs/{bound[0].id}/retry")))
    assert "It must start before its deadline, 2099-01-03 00:00:00 UTC" in alone


@pytest.mark.parametrize(
    ("back", "more"),
    [
        ("/ops/jobs/jobs?state=failed", "2 more match"),
        ("/ops/jobs/jobs?state=failed&queue=mail", "1 more match"),
        ("/ops/jobs/jobs?task=send_invoice", "3 more match"),
        ("/ops/jobs/jobs?state=failed&queue=elsewhere", None),
        ("/ops/jobs/jobs", None),
        ("/ops/jobs/jobs?state=nonsense", None),
        ("/ops/jobs/queues", None),
    ],
)
def test_a_receipt_of_many_says_how_many_more_match_the_filter(
    back: str, more: str | None, get: Any, post: Post, preview: Any, session: Session
) -> None:
    done = [make_job(session, "failed", queue="mail") for _ in range(3)]
    make_job(session, "failed", queue="mail")
    make_job(session, "failed", queue="crm")
    make_job(session, "finished")
    session.commit()
    url, form = _sent(get(preview("/jobs/retry", job=[str(job.id) for job in done], back=back)))
    shown = _dialog_page(post(url, 200, script=True, **form | {"reason": REASON}))
    link = shown.select_one("[data-toast] a[href*='/jobs/jobs?']")
    assert (link and link.text) == more
    if link:
        wanted = back.partition("?")[2]
        assert sorted(link["href"].partition("?")[2].split("&")) == sorted(wanted.split("&"))
        rows = soup(get(link["href"].removeprefix("/ops/jobs")).text).select("tbody tr")
        left = [row for row in rows if int(row.select_one("a.id").text) not in {j.id for j in done}]
        assert len(left) == int(more.split()[0])


def test_run_again_links_the_new_jobs(get: Any, post: Post, preview: Any, session: Session) -> None:
    old = [make_job(session, "finished") for _ in range(7)]
    session.commit()
    url, form = _sent(get(preview("/jobs/run_again", job=[str(job.id) for job in old])))
    shown = _dialog_page(post(url, 200, script=True, **form | {"reason": REASON}))
    links = [link for link in shown.select("[data-toast] a") if link.text.startswith("job ")]
    assert len(links) == 5
    assert "and 2 more." in shown.select_one("[data-toast]").text
    assert "it runs again as" not in shown.text
    for link in links:
        page = get(link["href"].removeprefix("/ops/jobs"))
        assert "Run again from" in page.text
        assert any(
            str(job.id) == a.text for job in old for a in soup(page.text).select("dd a.mono")
        )


def test_a_job_s_page_offers_no_action_that_would_be_refused(get: Any, session: Session) -> None:
    unique = make_job(session, "failed", unique_key=b"k" * 32, unique_until="forever")
    session.add(
        UniqueLock(key=unique.unique_key, job_id=unique.id, until="forever", created_at=ago())
    )
    session.commit()
    page = soup(get(f"/jobs/{unique.id}").text)
    named = {b.text.strip(): b for b in page.select(".head .actions button")}
    assert named["Run again"].has_attr("disabled")
    assert f"job {unique.id} holds the unique lock of the same call" in named["Run again"]["title"]
    assert not named["Retry…"].has_attr("disabled")
