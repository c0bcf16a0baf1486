"""The pages of operations: their list, a draft, and one in each state, from what the loop really did."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from bs4 import BeautifulSoup
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter, OpsJobs
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.loops import detect
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.operations.lifecycle import WITHOUT_PROOF
from flask_opsjobs.operations.models import Operation
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.web.app import shell
from flask_opsjobs.web.operations import view
from tests.operations.conftest import FAILED, OTHER, RETURNED, Operations, counts_of, failure
from tests.operations.conftest import operations as operations
from tests.web.conftest import Access
from tests.web.every import soup

LONG = "marketplace_settlement_reconciliation_europe_west_priority_customers_overnight_1"
WHY: dict[str, Any] = {"actor": "tester", "reason": "because it is a test"}
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
Get = Callable[..., Any]


def _words(tree: Any) -> str:
    return " ".join(tree.get_text(" ").split())


@pytest.fixture
def send(client: FlaskClient) -> Callable[..., Any]:
    """Sends a form below the prefix, from one of our pages."""

    def send(path: str, **fields: str) -> Any:
        return client.post(f"/ops/jobs{path}", data=fields, headers=SAME_ORIGIN)

    return send


@pytest.fixture
def read(get: Get) -> Callable[..., BeautifulSoup]:
    """The page of an operation, or of the path given, as a tree."""

    def read(path: str | int = 1, **options: Any) -> BeautifulSoup:
        where = f"/operations/{path}" if isinstance(path, int) else path
        return soup(get(where, **options).text)

    return read


# --- the draft of a search


def test_a_search_becomes_a_draft_and_the_draft_an_operation(
    send: Any, read: Any, operations: Operations
) -> None:
    operations.enqueue(30, delay=3600)
    operations.enqueue(2)
    answer = send("/operations/draft", action="job.cancel", q="queue:default", rate="5", back="/x")
    assert (answer.status_code, answer.location) == (303, "/ops/jobs/operations/1")
    page = read()
    assert page.h1.text.split() == ["Cancel", "32", "jobs", "?"] or "Cancel 32 jobs" in page.h1.text
    will = page.find("section", {"aria-labelledby": "will"})
    assert "scheduled canceled 30" in _words(will)
    assert "available canceled 2" in _words(will)
    samples = page.find("section", {"aria-labelledby": "samples"})
    assert len(samples.select("tbody tr")) == 20
    assert "20 of 32 jobs, chosen at random" in _words(samples)
    assert page.find(id="rate")["value"] == "5"
    # The same samples each time.
    ids = [a.text for a in samples.select("a.id")]
    assert [a.text for a in read().select("[aria-labelledby=samples] a.id")] == ids
    started = send("/operations/1/start", reason=WHY["reason"], rate="")
    assert (started.status_code, started.location) == (303, "/ops/jobs/operations/1")
    operation = operations.operation()
    assert (operation["state"], operation["rate"], operation["via"]) == ("running", None, "page")
    # 0 is no limit too.
    assert send("/operations/draft", action="job.cancel", rate="0").status_code == 303
    assert send("/operations/2/start", reason=WHY["reason"], rate="0").status_code == 303
    assert operations.operation()["rate"] is None
    assert "running" in _words(read().h1.find_parent("header"))


@pytest.mark.parametrize(
    ("fields", "search"),
    [
        ({}, "all jobs"),
        ({"state": "scheduled"}, "state:scheduled"),
        ({"state": "scheduled", "queue": "default"}, "state:scheduled queue:default"),
    ],
)
def test_a_draft_says_its_search_as_it_is_typed(
    fields: dict[str, str], search: str, send: Any, read: Any, operations: Operations
) -> None:
    operations.enqueue(2, delay=3600)
    send("/operations/draft", action="job.cancel", **fields)
    lead = " ".join(read().select_one(".lead").get_text().split())
    assert lead.endswith(f" 2 jobs match {search}, counted exactly")


@pytest.mark.lane
@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"action": "job.cancel", "state": "failed"}, 422, "no job matches"),
        ({"action": "job.fry", "state": "scheduled"}, 422, "no operation does"),
        ({"action": "job.cancel", "rate": "fast"}, 422, "a whole number from 1 to 10,000"),
        ({"action": "job.cancel", "rate": "10001"}, 422, "a whole number from 1 to 10,000"),
        ({"action": "job.cancel", "state": "broken"}, 422, "there is no state"),
        ({"action": "job.cancel", "error": "Boom"}, 422, "no job matches"),
        ({"action": "job.delete"}, 403, "it needs job.delete"),
    ],
)
def test_what_cannot_be_drafted_says_why(
    fields: dict[str, str],
    status: int,
    says: str,
    send: Any,
    record_job: Any,
    access: Access,
    session: Session,
) -> None:
    record_job(delay=3600)
    access.held.discard("job.delete")
    answer = send("/operations/draft", **fields)
    assert answer.status_code == status
    assert says in soup(answer.text).find(id="dialog-page").text.lower()
    assert session.scalars(select(Operation)).all() == []


def test_a_draft_says_what_is_skipped_and_why(send: Any, read: Any, operations: Operations) -> None:
    operations.fail(3)
    operations.enqueue(4)
    operations.perform(RETURNED, 4)
    (late,) = operations.enqueue(1, delay=3600)
    send("/operations/draft", action="job.discard", queue="default")
    page = read()
    skipped = page.find("section", {"aria-labelledby": "skipped"})
    assert "7 of 8 jobs for their state" in _words(skipped)
    assert "finished its state does not allow it 4" in _words(skipped)
    links = {a.text.strip(): a["href"] for a in skipped.select("a.name")}
    assert links["failed"] == "/ops/jobs/jobs?state=failed&queue=default"
    samples = page.find("section", {"aria-labelledby": "samples"})
    assert f"{late} note scheduled failed ended: nothing → discarded" in _words(samples)
    assert "Discard 1 job" in _words(page.find("section", {"aria-labelledby": "start"}))
    assert "judged again when its turn comes" in _words(skipped)


def test_the_samples_are_judged_as_of_now(send: Any, read: Any, operations: Operations) -> None:
    """What somebody else has done since the draft shows, although the draft stays as it was frozen."""
    ids = operations.enqueue(2, delay=3600)
    send("/operations/draft", action="job.cancel", state="scheduled")
    operations.operator.cancel(ids[0], **WHY)
    page = read()
    assert "scheduled canceled 2" in _words(page.find("section", {"aria-labelledby": "will"}))
    assert "it is canceled" in _words(page.find("section", {"aria-labelledby": "skipped"}))


def test_a_reason_that_is_too_short_is_kept_in_its_field(send: Any, operations: Operations) -> None:
    operations.enqueue(1)
    send("/operations/draft", action="job.cancel", queue="default")
    for fields, says in (
        ({"reason": "no", "rate": "7"}, "Say why, in at least 8 characters"),
        ({"reason": WHY["reason"], "rate": "0.5"}, "a whole number from 1 to 10,000"),
    ):
        answer = send("/operations/1/start", **fields)
        assert answer.status_code == 422
        page = soup(answer.text)
        assert says in _words(page.find(role="alert")).replace("Rate:", "rate:")
        assert page.find(id="reason").text == fields["reason"]
        assert page.find(id="rate")["value"] == fields["rate"]
    assert operations.operation()["state"] == "draft"


def test_a_draft_is_handed_on(send: Any, read: Any, operations: Operations, access: Access) -> None:
    operations.enqueue(1)
    send("/operations/draft", action="job.cancel", queue="default")
    says = "a colleague who may do operation.start and job.cancel"
    start = read().find("section", {"aria-labelledby": "start"})
    assert says in _words(start)
    assert start.select_one("form p a")["href"] == "/ops/jobs/operations/1"
    access.actor = "ben"
    assert "drafted by tester" in _words(read())
    assert send("/operations/1/start", reason=WHY["reason"]).status_code == 303
    assert (operations.operation()["state"], operations.operation()["actor"]) == ("running", "ben")


def test_a_colleague_without_the_permission_sees_the_draft_and_cannot_start_it(
    send: Any, read: Any, operations: Operations, access: Access
) -> None:
    operations.enqueue(1)
    send("/operations/draft", action="job.cancel", queue="default")
    access.actor = "ben"
    may: Any = lambda actor, permission, _subject=None: (  # noqa: E731
        (actor, permission) != ("ben", "job.cancel")
    )
    access.can = may  # type: ignore[method-assign]
    page = read()
    start = page.find("section", {"aria-labelledby": "start"})
    assert "It cannot be started: it needs job.cancel" in _words(start)
    assert start.find("button").has_attr("disabled")
    # Its samples are planned as for its maker: for ben each would lack the permission.
    assert "skipped" not in _words(page.find("section", {"aria-labelledby": "samples"}))
    answer = send("/operations/1/start", reason=WHY["reason"])
    assert answer.status_code == 403
    assert "it needs job.cancel" in _words(soup(answer.text).find(role="alert"))
    assert operations.operation()["state"] == "draft"


def test_a_draft_expires(send: Any, read: Any, operations: Operations, session: Session) -> None:
    operations.enqueue(1)
    send("/operations/draft", action="job.cancel", queue="default")
    session.execute(text("UPDATE opsjobs.operations SET expires_at = created_at"))
    session.commit()
    assert "older than 15 minutes" in _words(read())
    answer = send("/operations/1/start", reason=WHY["reason"])
    assert answer.status_code == 409
    assert "older than 15 minutes" in _words(soup(answer.text).find(role="alert"))
    operations.pass_all()
    assert "Nobody started it within 15 minutes" in _words(read())
    # The page that was open still has its form.
    answer = send("/operations/1/start", reason=WHY["reason"])
    assert answer.status_code == 409
    assert "it is expired" in _words(soup(answer.text).find(role="alert"))


def test_of_two_starts_of_one_draft_one_wins(app: Any, operations: Operations, send: Any) -> None:
    operations.enqueue(3)
    send("/operations/draft", action="job.cancel", queue="default")
    codes: list[int] = []

    def start() -> None:
        answer = app.test_client().post(
            "/ops/jobs/operations/1/start", data={"reason": WHY["reason"]}, headers=SAME_ORIGIN
        )
        codes.append(answer.status_code)

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [303, 409, 409, 409]
    assert operations.operation()["state"] == "running"
    started = "SELECT count(*) AS n FROM opsjobs.audit_events WHERE outcome = 'done'"
    assert operations.bench.row(started)["n"] == 1


def test_a_policy_that_bounds_says_so_on_the_draft(
    send: Any, read: Any, operations: Operations, access: Access
) -> None:
    operations.enqueue(3)
    send("/operations/draft", action="job.cancel", queue="default")
    access.most_targets = lambda _actor, permission: 2 if permission == "job.cancel" else None  # type: ignore[attr-defined]
    start = read().find("section", {"aria-labelledby": "start"})
    assert "tester may do job.cancel to 2 at once, not to 3" in _words(start)
    assert send("/operations/1/start", reason=WHY["reason"]).status_code == 409
    access.held.discard("operation.start")
    start = read().find("section", {"aria-labelledby": "start"})
    assert "needs operation.start" in _words(start)


def test_a_search_in_arguments_shows_only_to_who_may_see_them(
    send: Any, read: Any, operations: Operations, access: Access
) -> None:
    operations.enqueue(3)
    send("/operations/draft", action="job.cancel", q="args.text:1")
    assert "args.text:1" in _words(read())
    access.held.discard("payload.view")
    assert "args.text" not in read().text
    assert "none that you may see" in _words(read())
    refused = send("/operations/draft", action="job.cancel", q="args.text:1")
    assert refused.status_code == 403


# --- one in each state


def test_a_running_one_says_how_far_it_is(read: Any, operations: Operations) -> None:
    operations.fail(130)
    operations.operator.start("job.retry", FAILED, **WHY)
    for outcome in (RETURNED, failure(OTHER), RETURNED):
        operations.pass_all()
        operations.perform(outcome)
    operations.pass_all()
    page = read()
    assert "It runs." in _words(page.select_one(".say"))
    progress = page.find("section", {"aria-labelledby": "progress"})
    counts = operations.operation()
    handled = sum(counts[name] for name in ("done", "proven", "failed_other_error"))
    said = _words(progress)
    assert said.startswith(f"{handled} of 130 handled")
    assert "No time left can be said before the last stage" in said
    assert "✓" not in said
    stages = [_words(stage) for stage in progress.select(".stages li")]
    assert stages[0] == "1: 1 proven"
    assert stages[1].startswith(f"stage 2 of 4: {handled - 1} of 10 handled")
    assert stages[3] == "the rest: 19"
    assert progress.select_one("svg.stacked .stage-end")
    parts = {_words(part) for part in progress.select(".parts li")}
    assert f"{counts['proven']} proven: finished" in parts
    assert f"{130 - handled} left" in parts
    assert [button.text.strip() for button in page.select(".head .actions button")] == [
        "Pause…",
        "Cancel the rest…",
    ]


def test_the_last_stage_of_a_slow_one_says_its_pace(
    read: Any, operations: Operations, session: Session
) -> None:
    operations.enqueue(400)
    operations.operator.start("job.cancel", JobFilter(queue="default"), rate=100, **WHY)
    # At 100 a second ten jobs have their turn in each tenth of a second.
    operations.later(timedelta(seconds=-3))
    for _ in range(20):
        operations.pass_once()
        operations.later(timedelta(seconds=0.1))
    said = _words(read().find("section", {"aria-labelledby": "progress"}))
    assert re.search(r"About \d+ a second now. About \d s left at this pace.", said), said
    moved = "handled_at = handled_at - interval '3 minutes'"
    session.execute(text(f"UPDATE opsjobs.operations SET {moved}"))
    session.execute(
        text(
            f"UPDATE opsjobs.operation_rows SET {moved.replace('handled_at', 'at')} WHERE at IS NOT NULL"
        )
    )
    session.commit()
    said = _words(read().find("section", {"aria-labelledby": "progress"}))
    assert re.search(r"About \d+ a second when it changed jobs last. No time left", said), said


def test_a_paused_one_says_why_and_whether_it_goes_on_by_itself(
    read: Any, operations: Operations, send: Any
) -> None:
    operations.fail(20)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.is_silent = True
    operations.bench.connection.execute(
        "UPDATE opsjobs.workers SET heartbeat_at = now() - interval '1 hour'"
    )
    operations.pass_all()
    page = read()
    said = _words(page.select_one(".say[data-is=stopped]"))
    assert "no live worker listens to the queue default" in said
    assert "It goes on by itself when that is over" in said
    progress = _words(page.find("section", {"aria-labelledby": "progress"}))
    assert "No time left can be said while it is paused" in progress
    operations.is_silent = False
    operations.pass_all()
    operations.operator.pause_operation(1, **WHY)
    said = _words(read().select_one(".say[data-is=stopped]"))
    assert "tester paused it: because it is a test" in said
    assert "It goes on when somebody resumes it" in said


def test_a_stopped_one_is_an_incident_that_resumes_it(
    read: Any, get: Get, send: Any, operations: Operations, client: FlaskClient
) -> None:
    operations.fail(150)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.run(failure())
    page = read()
    said = _words(page.select_one(".say[data-is=refused]"))
    assert "the first retried job failed with the same error, in stage 1" in said
    assert "149 jobs are not changed" in said
    buttons = [_words(button) for button in page.select(".head .actions button")]
    assert buttons == ["Resume…", "Cancel the rest…", "Undo it left nothing that could be undone"]
    Runner(detect.LOOP, operations.bench.host, "one").run_once(
        operations.bench.connection, operations.now
    )
    assert "See incident" in _words(read().select_one(".say[data-is=refused]"))
    (link,) = [a for a in read().select(".say a") if "See incident" in a.text]
    incident = soup(client.get(str(link["href"])).text)
    assert incident.select_one("a[href='/ops/jobs/operations/1']")
    offered = [b["formaction"] for b in incident.select(".actions button[formaction]")]
    assert offered[0] == "/ops/jobs/operations/1/resume"
    assert "/ops/jobs/operations/1/cancel" in offered
    assert DETECTORS["operation_stopped"].repairs == ("operation.resume", "operation.cancel")


@pytest.mark.parametrize("state", WITHOUT_PROOF)
def test_after_its_end_no_row_waits_for_proof(
    read: Any, operations: Operations, access: Access, state: str
) -> None:
    operations.fail(13)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    while operations.operation()["proven"] < 11:
        operations.perform(RETURNED)
        operations.pass_all()
    assert "2 done, wait for proof" in _words(read().select_one(".parts"))
    if state == "canceled":
        operations.operator.cancel_operation(1, **WHY)
    elif state == "stopped":
        access.held.remove("job.retry")
    else:
        operations.later(timedelta(minutes=11))
    operations.pass_all()
    operation = operations.operation()
    counts = {"proven": 11, "done": 2}
    assert (operation["state"], counts_of(operation)) == (state, counts)
    says = WITHOUT_PROOF[state]
    page = read()
    assert f"2 done, {says}" in _words(page.select_one(".parts"))
    receipts = _words(page.find("section", {"aria-labelledby": "receipts"}))
    assert receipts.count(f"{says}, now ") == 2
    assert "wait for proof" not in _words(page)
    assert "waits for proof" not in _words(page)
    assert f"done 2 {says}" in _words(read("/forensics/operation/1"))


def test_an_action_is_previewed_and_asks_why(
    client: FlaskClient, send: Any, operations: Operations, read: Any
) -> None:
    operations.enqueue(300)
    operations.operator.start("job.cancel", JobFilter(queue="default"), rate=1, **WHY)
    operations.pass_once()
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "canceled")):
        shown = send(f"/operations/1/{action}", back="/ops/jobs/operations/1")
        assert shown.status_code == 303
        preview = soup(client.get(shown.location).text)
        form = preview.select_one("#dialog-page form")
        fields = {str(i["name"]): str(i["value"]) for i in form.select("input[type=hidden]")}
        client.post(
            str(form["action"]), data=fields | {"reason": WHY["reason"]}, headers=SAME_ORIGIN
        )
        assert operations.operation()["state"] == state
        assert state in _words(read().h1.find_parent("header"))
    shown = client.get("/ops/jobs/operations/1/pause")
    assert shown.status_code == 405


def test_a_preview_that_somebody_else_overtook_has_drifted(
    client: FlaskClient, send: Any, operations: Operations
) -> None:
    operations.enqueue(300)
    operations.operator.start("job.cancel", JobFilter(queue="default"), rate=1, **WHY)
    shown = send("/operations/1/pause")
    preview = soup(client.get(shown.location).text)
    form = preview.select_one("#dialog-page form")
    fields = {str(i["name"]): str(i["value"]) for i in form.select("input[type=hidden]")}
    operations.operator.cancel_operation(1, actor="ben", reason="the rest is not needed")
    answer = client.post(
        str(form["action"]), data=fields | {"reason": WHY["reason"]}, headers=SAME_ORIGIN
    )
    assert answer.status_code == 409
    assert "something has changed" in _words(soup(answer.text).h1)
    assert operations.operation()["state"] == "canceled"


def test_a_finished_one_is_undone_or_says_why_not(
    client: FlaskClient, read: Any, get: Get, operations: Operations
) -> None:
    operations.enqueue(12, delay=3600)
    operations.operator.start("job.cancel", JobFilter(state="scheduled"), **WHY)
    operations.run()
    assert [_words(b) for b in read().select(".head .actions button")] == ["Undo…"]
    operations.operator.undo_operation(1, **WHY)
    assert read().select_one(".lead a[href='/ops/jobs/operations/2']").text.split() == [
        "operation",
        "2",
    ]
    assert "undoes operation 1" in _words(read(2).select_one(".lead"))
    operations.run(failure())
    operations.operator.start("job.delete", FAILED, **WHY)
    operations.run()
    page = read(3)
    (button,) = page.select(".head .actions button")
    assert button.has_attr("disabled")
    assert _words(button) == "Undo job.delete cannot be undone: what was deleted is gone"
    assert "none: what was deleted is gone" in _words(page.find("dl", "facts"))
    assert "job deleted" in _words(page.find("section", {"aria-labelledby": "receipts"}))


def test_receipts_are_paged_and_chosen_by_result_and_reason(
    read: Any, get: Get, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MOST_RECEIPTS", 10)
    ids = operations.enqueue(30, delay=3600)
    draft = operations.operator.draft("job.cancel", JobFilter(state="scheduled"), actor="tester")
    assert draft.id is not None
    for job in ids[1:4]:
        operations.operator.cancel(job, **WHY)
    operations.operator.start_draft(draft.id, **WHY)
    operations.run()

    def jobs(page: BeautifulSoup) -> list[int]:
        return [int(a.text) for a in page.select("[aria-labelledby=receipts] tbody a.id")]

    seen, path = [], "/operations/1"
    while path:
        page = read(path)
        seen += jobs(page)
        older = page.select_one("[aria-labelledby=receipts] a[rel=next]")
        path = str(older["href"]).removeprefix("/ops/jobs") if older else ""
    assert seen == ids[::-1]
    (reason,) = read().select("[aria-labelledby=skipped] tbody tr")
    assert _words(reason) == "illegal 3"
    chosen = read(str(reason.a["href"]).removeprefix("/ops/jobs").partition("#")[0])
    assert jobs(chosen) == ids[3:0:-1]
    assert "illegal: cannot cancel job" in _words(
        chosen.find("section", {"aria-labelledby": "receipts"})
    )
    assert jobs(read("/operations/1?result=done")) == [ids[0], *ids[4:]][::-1][:10]
    assert "No receipt matches" in read("/operations/1?result=asked").text
    for bad in ("result=pending", "result=x", "before=x", "code=" + "x" * 41):
        get(f"/operations/1?{bad}", 422)
        get(f"/operations/1/live?{bad}", 422)


def test_it_is_polled_with_an_etag(client: FlaskClient, operations: Operations) -> None:
    operations.enqueue(3)
    operations.operator.start("job.cancel", JobFilter(queue="default"), **WHY)
    _forget(client)
    page = soup(client.get("/ops/jobs/operations/1").text).find(id="live")
    unchanged = client.get(page["hx-get"], headers={"If-None-Match": page["data-etag"]})
    assert unchanged.status_code == 304
    operations.run()
    changed = client.get(page["hx-get"], headers={"If-None-Match": page["data-etag"]})
    assert changed.status_code == 200
    assert "Finished" in changed.text
    _forget(client)  # else its header may change within the second
    listed = soup(client.get("/ops/jobs/operations?state=finished").text).find(id="live")
    assert (
        client.get(listed["hx-get"], headers={"If-None-Match": listed["data-etag"]}).status_code
        == 304
    )


def test_nothing_moves_while_the_loop_does_not_run(read: Any, operations: Operations) -> None:
    operations.enqueue(3)
    operations.operator.start("job.cancel", JobFilter(queue="default"), **WHY)
    assert "Nothing moves: the loop operate does not run." in _words(read().select_one(".say"))


def test_an_unknown_one_is_not_found(get: Get, send: Any) -> None:
    for id in ("1", "x", "99999999999999999999"):
        get(f"/operations/{id}", 404)
        get(f"/operations/{id}/live", 404)
        assert send(f"/operations/{id}/start", reason=WHY["reason"]).status_code == 404


# --- the list, Lifeline, the header, and the pages of jobs


def test_the_list_is_by_state_and_goes_on_to_older_ones(
    read: Any, get: Get, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_opsjobs.operations.queries.MOST_OPERATIONS", 2)
    operations.enqueue(5)
    for _ in range(5):
        operations.operator.start("job.cancel", JobFilter(queue="default"), **WHY)
        operations.run()
    operations.operator.draft("job.discard", JobFilter(queue="default"), actor="tester")
    for tab, expected in (
        ("", ["6", "5", "4", "3", "2", "1"]),
        ("?state=finished", ["5", "4", "3", "2", "1"]),
        ("?state=open", ["6"]),
        ("?state=stopped", []),
    ):
        seen, path = [], f"/operations{tab}"
        while path:
            page = read(path)
            seen += [a.text for a in page.select("tbody a.id")]
            older = page.select_one("a[rel=next]")
            path = str(older["href"]).removeprefix("/ops/jobs") if older else ""
        assert seen == expected
    for bad in ("state=x", "after=x"):
        get(f"/operations?{bad}", 422)


def _forget(client: FlaskClient) -> None:
    """Let the next page read the header anew: it is kept for a second."""
    with client.application.test_request_context():
        shell.forget_sources()


def test_the_header_of_every_page_names_one_in_progress(
    get: Get, client: FlaskClient, operations: Operations, access: Access
) -> None:
    assert soup(get("/queues").text).select_one("#busy a") is None
    operations.enqueue(300)
    operations.operator.start("job.cancel", JobFilter(queue="default"), rate=1, **WHY)
    _forget(client)
    busy = soup(get("/queues").text).select_one("header.top #busy a")
    assert (_words(busy), busy["href"]) == (
        "Operation 1 in progress: running",
        "/ops/jobs/operations/1",
    )
    operations.operator.pause_operation(1, **WHY)
    operations.operator.start("job.cancel", JobFilter(queue="default"), rate=1, **WHY)
    _forget(client)
    busy = soup(get("/queues").text).select_one("#busy a")
    assert (_words(busy), busy["href"]) == (
        "2 operations in progress: paused",
        "/ops/jobs/operations?state=open",
    )
    # A poll of any page brings it.
    assert soup(get("/jobs/live").text).select_one("#busy[hx-swap-oob] a")
    lifeline = soup(get("/lifeline").text).find("section", {"aria-labelledby": "operations"})
    assert [a.text for a in lifeline.select("tbody a.id")] == ["2", "1"]
    access.held.discard("operations.view")
    assert soup(get("/queues").text).select_one("#busy a") is None
    assert soup(get("/lifeline").text).find("section", {"aria-labelledby": "operations"}) is None


def test_a_job_and_a_decision_lead_to_the_operation(
    get: Get, operations: Operations, access: Access
) -> None:
    (job,) = operations.enqueue(1, delay=3600)
    operations.operator.start("job.cancel", JobFilter(state="scheduled"), **WHY)
    operations.run()
    assert soup(get(f"/jobs/{job}").text).select_one("dd a[href='/ops/jobs/operations/1']")
    assert soup(get("/audit/1").text).select_one("a[href='/ops/jobs/operations/1']")
    receipts = soup(get("/operations/1").text).find("section", {"aria-labelledby": "receipts"})
    assert receipts.select_one(f"a[href='/ops/jobs/jobs/{job}']")
    access.held.discard("operations.view")
    assert not soup(get(f"/jobs/{job}").text).select("a[href='/ops/jobs/operations/1']")


def test_what_one_may_not_see_is_not_on_the_page(
    get: Get, read: Any, operations: Operations, access: Access
) -> None:
    operations.fail(3)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.run(failure(OTHER))
    assert "Boom" in read().text
    access.held = {"operations.view"}
    page = read()
    assert "Boom" not in page.text
    receipts = page.find("section", {"aria-labelledby": "receipts"})
    assert not receipts.select("tbody a.id")
    assert page.find(id="decided") is None
    get("/operations")


def test_names_of_80_characters_are_shortened(
    opsjobs: OpsJobs, read: Any, operations: Operations
) -> None:
    def settle(text: str = "") -> None:
        """Takes a text."""

    settle.__name__ = LONG
    operations._note = opsjobs.task(settle)
    operations.fail(2)
    BulkOperator(operations.bench.host).draft("job.retry", JobFilter(task=LONG), actor="tester")
    page = read()
    assert page.h1.find("span", "short-name")["title"] == LONG
    assert page.select_one("[aria-labelledby=samples] .short-name")["title"] == LONG
    operations.operator.start_draft(1, **WHY)
    operations.run(RETURNED)
    assert read().select_one("[aria-labelledby=receipts] .short-name")["title"] == LONG
