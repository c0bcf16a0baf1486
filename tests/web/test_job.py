"""One job in full: its error first, its attempts, what its state means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.audit.history import tell_decision
from flask_opsjobs.audit.queries import list_events_of
from flask_opsjobs.jobs.lifecycle import (
    DEATHS,
    ENDED_BY,
    MANAGED_STATES,
    MEANINGS,
    OUTCOMES,
    STATES,
    sources_of,
)
from flask_opsjobs.jobs.models import Attempt, Job
from flask_opsjobs.jobs.queries import find_job, list_attempts
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.web.job.attempts_svg import WIDTH, draw_timeline
from flask_opsjobs.web.job.traceback import condense
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import (
    TRACEBACK,
    ago,
    clock,
    make_attempt,
    make_chain,
    make_incident,
    make_job,
    make_output,
    make_pause,
    make_worker,
    paused,
)

Get = Callable[..., Any]


def _words(get: Get, job: Job) -> str:
    return " ".join(soup(get(f"/jobs/{job.id}").text).main.text.split())


@pytest.mark.parametrize("state", STATES)
def test_each_state_says_what_it_means(state: str, get: Get, session: Session) -> None:
    job = make_job(session, state, error=None)
    session.commit()
    assert f"{state.capitalize()}: {MEANINGS[state]}." in _words(get, job)


@pytest.mark.parametrize("ended_by", ENDED_BY)
def test_each_cause_of_an_end_is_said(ended_by: str, get: Get, session: Session) -> None:
    state = "unknown" if ended_by == "unseen" else "failed"
    job = make_job(session, state, ended_by=ended_by, ended_reason="for a reason", error=None)
    session.commit()
    words = _words(get, job)
    assert f"{ENDED_BY[ended_by].capitalize()}." in words
    assert "for a reason" in words


def test_the_incident_about_a_job_is_linked(get: Get, session: Session, access: Access) -> None:
    job, other = make_job(session, "retryable"), make_job(session, "retryable")
    incident = make_incident(session, "poison", subject=f"job/{job.id}")
    session.commit()
    link = _section(get, job, "relations").select_one('a[href*="/incidents/"]')
    assert link["href"] == f"/ops/jobs/lifeline/incidents/{incident.id}"
    assert link.parent.text.split() == [str(incident.id), "warning"]
    assert "Incident" not in _section(get, other, "relations").text
    access.held.discard("lifeline.view")
    assert "Incident" not in _section(get, job, "relations").text


def test_that_a_job_is_canceled_is_said_once(get: Get, session: Session) -> None:
    job = make_job(
        session, "canceled", ended_by="canceled", ended_reason="paid in the meantime", error=None
    )
    session.commit()
    said = f"Canceled: {MEANINGS['canceled']}. Reason: paid in the meantime"
    assert said in _words(get, job)
    assert _section(get, job, "history").li.p.text == "Canceled: paid in the meantime"


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_of_an_attempt_has_a_word(outcome: str, get: Get, session: Session) -> None:
    job = make_job(session, "retryable")
    make_attempt(session, job, outcome, cause_of_death="signal 9", max_rss_kb=91_000)
    session.commit()
    row = soup(get(f"/jobs/{job.id}").text).select_one("[aria-labelledby=attempts] tbody tr")
    assert row is not None
    assert row.select_one(".chip").text.strip()
    assert "signal 9" in row.text
    assert "93.2 MB" in row.text


@pytest.mark.parametrize("death", DEATHS)
def test_a_cause_of_death_is_a_word_with_its_facts(death: str, get: Get, session: Session) -> None:
    job = make_job(session, "failed")
    facts = {"signal": "SIGKILL", "peak_kb": 91_000, "limit_kb": 100_000, "oom_kills": 1}
    make_attempt(session, job, "died", error="it died", death=death, death_facts=facts)
    session.commit()
    tree = soup(get(f"/jobs/{job.id}").text)
    row = " ".join(tree.select_one("[aria-labelledby=attempts] tbody tr").text.split())
    word = death.replace("_", " ")
    says = f"{word}: SIGKILL, memory 93.2 MB of 102.4 MB, Linux killed 1 process of it"
    assert says in row
    assert f": {word}." in " ".join(tree.select_one(".err header").text.split())


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("an operator", "stopped: by an operator, SIGKILL"),
        ("stopped with its worker", "stopped: with its worker, SIGKILL"),
        ("killed by a command of RQ", "stopped: killed by a command of RQ, SIGKILL"),
    ],
)
def test_a_stop_says_who_or_what_stopped_it(by: str, says: str, get: Get, session: Session) -> None:
    job, facts = make_job(session, "failed"), {"by": by, "signal": "SIGKILL"}
    make_attempt(session, job, "died", error="it died", death="stopped", death_facts=facts)
    session.commit()
    row = soup(get(f"/jobs/{job.id}").text).select_one("[aria-labelledby=attempts] tbody tr")
    assert says in " ".join(row.text.split())


def test_a_death_without_facts_says_what_was_seen(get: Get, session: Session) -> None:
    job = make_job(session, "failed")
    seen = {"death": "vanished", "cause_of_death": "no heartbeat for 120 s"}
    make_attempt(session, job, "lost", **seen)
    session.commit()
    row = soup(get(f"/jobs/{job.id}").text).select_one("[aria-labelledby=attempts] tbody tr")
    assert "vanished: no heartbeat for 120 s" in " ".join(row.text.split())


def test_the_error_comes_first_and_says_where(get: Get, jobs: dict[str, Job]) -> None:
    tree = soup(get(f"/jobs/{jobs['failed'].id}").text)
    first = tree.select_one("#part section")
    assert "err" in first["class"]
    assert "GatewayTimeout: no answer" in first.h2.text
    frames = [" ".join(row.text.split()) for row in first.select(".frames tr")]
    assert frames == [
        "billing/tasks.py:41 process_invoice receipt = gateway.charge(account, invoice)",
        "2 frames in requests, urllib3",
        'billing/gateway.py:64 _post raise GatewayTimeout("customer-api did not answer in 30 s") from e',
    ]
    assert "site-packages/requests" in first.select_one("pre").text


def test_a_paused_queue_and_a_wish_to_cancel_are_said(get: Get, session: Session) -> None:
    session.add(Queue(name="mail", created_at=ago(), **paused()))
    job = make_job(
        session,
        queue="mail",
        cancel_requested_at=ago(minutes=3),
        cancel_requested_by="anna",
        cancel_reason="it is wrong",
        deadline_at=ago(hours=-5),
    )
    session.commit()
    words = _words(get, job)
    assert "Its queue is paused" in words
    assert f"{clock(job.cancel_requested_at)} UTC: it is wrong." in words
    assert f"It fails if it has not started by its deadline, {clock(job.deadline_at)} UTC." in words


def test_a_paused_task_is_said(get: Get, session: Session) -> None:
    session.add(make_pause("send"))
    due, later = make_job(session, task="send"), make_job(session, "scheduled", task="send")
    session.commit()
    assert "Its task is paused, so it is not dispatched." in _words(get, due)
    assert "Its task is paused" not in _words(get, later)


def test_who_has_taken_a_job_is_said(get: Get, session: Session) -> None:
    worker = make_worker(session, name="wk-eu-1")
    job = make_job(session, "queued", reserved_by=worker.id)
    session.commit()
    words = _words(get, job)
    assert (
        "Taken by worker wk-eu-1, which has not begun it; its last heartbeat came on time." in words
    )
    assert "Worker wk-eu-1 has taken it, and has not begun it yet." in words
    # Only its worker moves it: its due time has no form.
    assert "Reschedule" not in words


def test_an_attempt_names_its_process(get: Get, session: Session) -> None:
    job = make_job(session, "failed", dispatch_no=2)
    make_attempt(session, job, dispatch_no=1, worker="rq-legacy-1")
    make_attempt(session, job, worker="wk-eu-1", pid=4711)
    session.commit()
    cells = _section(get, job, "attempts").select("tbody .wide div")
    assert [" ".join(cell.text.split()) for cell in cells] == [
        "wk-eu-1, process 4711",
        "rq-legacy-1",
    ]


def test_progress_output_and_facts_are_shown(get: Get, session: Session) -> None:
    job = make_job(session, "started", tags=["eu"], timeout_seconds=30, dispatch_no=7)
    make_attempt(session, job, None, progress_done=120, progress_total=400, progress_note="rows")
    done = make_job(session, "finished")
    make_output(session, done, {"pages": 14})
    left = make_job(session, "finished")
    make_output(session, left, None, omitted="300 kB is more than 256 kB")
    session.commit()
    words = _words(get, job)
    assert "120 of 400 rows" in words
    assert f"opsjobs-{job.id}-7" in words
    assert "30 s" in words
    assert "eu" in words
    assert '"pages": 14' in _words(get, done)
    assert "Not kept: 300 kB is more than 256 kB" in _words(get, left)


def test_the_log_of_any_attempt_can_be_chosen(get: Get, session: Session) -> None:
    job = make_job(session, "failed", dispatch_no=3, attempt=3)
    for number in (1, 2, 3):
        log = f"line of {number}" if number < 3 else None
        make_attempt(session, job, dispatch_no=number, attempt=number, log_tail=log)
    session.commit()
    assert "line of 2" in _words(get, job)  # the last that has one
    chosen = soup(get(f"/jobs/{job.id}?attempt=1").text)
    assert "line of 1" in chosen.main.text
    assert "attempt=1" in chosen.select_one("#live")["hx-get"]
    assert "logged nothing" in get(f"/jobs/{job.id}?attempt=3").text
    for wrong in ("9", "x", "%00"):
        assert "no attempt" in get(f"/jobs/{job.id}?attempt={wrong}", 422).text


def test_thousands_of_attempts_are_cut(get: Get, session: Session) -> None:
    job = make_job(session, "scheduled", dispatch_no=120, attempt=1)
    for number in range(1, 121):
        make_attempt(session, job, "snoozed", dispatch_no=number)
    session.commit()
    tree = soup(get(f"/jobs/{job.id}").text)
    assert len(tree.select("[aria-labelledby=attempts] tbody tr")) == 50
    assert "the last 50" in tree.text


def test_attempts_lie_on_a_line_of_time(session: Session) -> None:
    job = make_job(session, "failed", dispatch_no=3, attempt=3)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number, minute in ((1, 0), (2, 1), (3, 20)):
        begun = start + timedelta(minutes=minute)
        make_attempt(
            session,
            job,
            "raised",
            dispatch_no=number,
            attempt=number,
            started_at=begun,
            ended_at=begun + timedelta(seconds=30),
        )
    session.flush()
    found = find_job(session, job.id)
    assert found is not None
    line = draw_timeline(list_attempts(session, job.id), found, start)
    assert line is not None
    assert [bar.label for bar in line.bars] == ["1", "2", "3"]
    assert [bar.status for bar in line.bars] == ["retryable", "retryable", "failed"]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 0.1 for bar in line.bars)
    assert [words for _, words in line.ticks] == [
        "start",
        "+5 min",
        "+10 min",
        "+15 min",
        "+20 min",
    ]
    assert draw_timeline(list_attempts(session, job.id)[:1], found, start) is None


@pytest.mark.parametrize(
    "text", ["", "no traceback", TRACEBACK[:200], "File \x00", '  File "\n' * 50]
)
def test_what_is_no_traceback_is_not_condensed_into_one(text: str) -> None:
    assert len(condense(text)) <= 1


def test_the_last_of_chained_exceptions_is_condensed() -> None:
    chained = TRACEBACK + "\nThe above exception was the direct cause of …\n\n" + TRACEBACK
    assert condense(chained) == condense(TRACEBACK)


def test_warnings_and_errors_stand_out_in_a_log(get: Get, session: Session) -> None:
    job = make_job(session, "failed")
    log = "02:01:41.2 INFO shop: begun\n02:01:51.4 WARNING shop: <slow>\n  a second line\n02:02 ERROR x: y"
    make_attempt(session, job, log_tail=log)
    session.commit()
    pre = soup(get(f"/jobs/{job.id}").text).select_one("[aria-labelledby=log] pre")
    assert pre is not None
    assert pre.text == log
    spans = {span.text: span["data-is"] for span in pre.select("[data-is]")}
    assert spans == {"WARNING shop: <slow>": "late", "ERROR x: y": "failed"}


def _section(get: Get, job: Job, name: str) -> Any:
    return soup(get(f"/jobs/{job.id}").text).select_one(f"[aria-labelledby={name}]")


def _relation(get: Get, job: Job, name: str) -> str:
    terms = _section(get, job, "relations").select("dt")
    return next(" ".join(dt.find_next("dd").text.split()) for dt in terms if dt.text == name)


def test_relations_lead_to_other_jobs(get: Get, session: Session) -> None:
    first = make_job(session, "failed", tags=["eu", "a b"])
    again = make_job(session, "queued", run_again_from=first.id)
    once_more = make_job(session, "started", run_again_from=first.id)
    rerun = make_job(session, run_again_from=999_999)
    session.commit()
    assert _relation(get, first, "Run again as") == f"{once_more.id} started, {again.id} queued"
    assert _relation(get, first, "Run again from") == "none"
    assert _relation(get, again, "Run again from") == f"{first.id} failed"
    assert _relation(get, rerun, "Run again from") == "999999 gone"
    assert "Enqueued, to run job" in _section(get, again, "history").text
    tags = {a.text: str(a["href"]) for a in _section(get, first, "relations").select("a.tag")}
    assert list(tags) == ["eu", "a b"]
    assert soup(get(tags["a b"].removeprefix("/ops/jobs")).text).select("table.jobs tbody tr")


def test_a_chain_of_plain_jobs_is_drawn_with_its_repair(get: Get, session: Session) -> None:
    parent, child = make_chain(session)
    session.commit()
    page = soup(get(f"/jobs/{child.id}").text)
    chain = " ".join(page.find("dt", string="Chain").find_next("dd").text.split())
    assert chain == f"depends on {parent.id} failed send_invoice gone gone, or never seen"
    why = page.select_one("[aria-labelledby=why]").text
    assert f"It depends on job {parent.id}, which failed." in why
    assert "It depends on RQ job gone, which RQ does not have" in why
    targets = {button.get("formaction") for button in page.select("button[formaction]")}
    assert f"/ops/jobs/jobs/{parent.id}/retry" in targets
    chain = soup(get(f"/jobs/{parent.id}").text).find("dt", string="Chain").find_next("dd").text
    assert " ".join(chain.split()) == f"is waited for by {child.id} deferred send_invoice"


def test_a_plain_job_has_the_buttons_that_rq_can_do(get: Get, session: Session) -> None:
    jobs = {state: make_job(session, state, origin="rq") for state in ("started", "finished")}
    session.commit()
    for state, names in (("started", ["Retry…", "Cancel…", "Discard…"]), ("finished", ["Delete…"])):
        page = soup(get(f"/jobs/{jobs[state].id}").text)
        assert [each.text.strip() for each in page.select(".head .actions button")] == names
        assert page.select_one("[aria-labelledby=reschedule-title]") is None


def test_a_unique_lock_says_whose_it_is(
    get: Get, opsjobs: OpsJobs, app: Flask, session: Session
) -> None:
    def greet(name: str) -> None:
        """Says hello."""

    task = opsjobs.task(unique=Unique(within=timedelta(hours=1)))(greet)
    with app.app_context():
        first = task.enqueue(name="Ann")
        app.extensions["sqlalchemy"].session.commit()
    job = session.get_one(Job, first.id)
    assert "enqueuing the same arguments returns this job instead of a new one" in _relation(
        get, job, "Unique"
    )
    assert "until" in _relation(get, job, "Unique")
    session.execute(text("UPDATE opsjobs.unique_locks SET job_id = 77"))
    session.commit()
    assert _relation(get, job, "Unique") == "its unique lock is now held by job 77"
    session.execute(text("DELETE FROM opsjobs.unique_locks"))
    session.commit()
    assert "is released" in _relation(get, job, "Unique")
    assert _relation(get, make_committed(session), "Unique") == "no"


def make_committed(session: Session) -> Job:
    """A job, committed."""
    job = make_job(session)
    session.commit()
    return job


def test_history_is_told_newest_first_with_who_saw_it(get: Get, session: Session) -> None:
    job = make_job(
        session,
        "failed",
        dispatch_no=2,
        attempt=2,
        created_at=ago(minutes=30),
        dispatched_at=ago(minutes=9),
        ended_at=(ended := ago(minutes=5)),
    )
    make_attempt(
        session,
        job,
        "lost",
        dispatch_no=1,
        attempt=1,
        cause_of_death="no heartbeat for 120 s",
        started_at=ago(minutes=20),
        ended_at=ago(minutes=10),
        worker="web-1:7",
    )
    make_attempt(session, job, dispatch_no=2, attempt=2, started_at=ago(minutes=8), ended_at=ended)
    session.commit()
    events = [
        (" ".join(item.p.text.split()), item.select_one(".source").text)
        for item in _section(get, job, "history").select("li")
    ]
    sources = [
        row.select("td")[-1].text for row in _section(get, job, "attempts").select("tbody tr")
    ]
    assert sources == ["worker", "nobody: inferred"], "as in the history"
    assert events == [
        ("Failed: the last attempt failed", "worker"),
        ("Attempt 2 ended, raised: GatewayTimeout: no answer", "worker"),
        ("Attempt 2 begun by web-1:2207", "worker"),
        ("Queued, dispatch 2", "dispatcher"),
        ("Attempt 1 ended, lost: no heartbeat for 120 s", "nobody: inferred"),
        ("Attempt 1 begun by web-1:7", "worker"),
        ("Enqueued", "host"),
    ]


@pytest.mark.parametrize("ended_by", ENDED_BY)
def test_every_end_has_a_source(ended_by: str, get: Get, session: Session) -> None:
    job = make_job(session, "unknown" if ended_by == "unseen" else "failed", ended_by=ended_by)
    session.commit()
    source = _section(get, job, "history").select_one(".source").text
    assert source in ("worker", "dispatcher", "operator", "observer")


def test_who_asked_to_cancel_is_said(get: Get, session: Session) -> None:
    job = make_job(
        session,
        "started",
        cancel_requested_at=ago(minutes=3),
        cancel_requested_by="ops-demo",
        cancel_reason="the customer left",
    )
    session.commit()
    words = _words(get, job)
    assert "ops-demo asked to cancel it " in words
    assert f"{clock(job.cancel_requested_at)} UTC: the customer left." in words
    assert "ops-demo asked to cancel it: the customer left" in _section(get, job, "history").text


def test_decisions_are_told_with_their_audit(
    get: Get, app: Flask, access: Access, session: Session, jobs: dict[str, Job]
) -> None:
    job = jobs["failed"]
    with app.app_context():
        operator = Operator(app.extensions["opsjobs"])
        receipt = operator.run(
            "job.retry", [f"job/{job.id}"], actor="ops-demo", reason="vendor is back"
        )
        assert receipt.is_done
    assert "ops-demo: retry: vendor is back" in " ".join(_section(get, job, "history").text.split())
    panel = _section(get, job, "audit")
    assert "vendor is back" in panel.text
    assert str(receipt.audit_sequence) in str(panel.a["href"])
    access.held -= {"audit.view"}
    assert _section(get, job, "audit") is None
    assert "vendor is back" not in get(f"/jobs/{job.id}").text


def test_a_decision_that_skipped_the_job_says_so(
    get: Get, app: Flask, jobs: dict[str, Job], session: Session
) -> None:
    done, skipped = jobs["failed"], jobs["started"]
    with app.app_context():
        operator = Operator(app.extensions["opsjobs"])
        targets = [f"job/{one.id}" for one in (done, skipped)]
        receipt = operator.run("job.retry", targets, actor="ops-demo", reason="vendor is back")
    assert [item.target for item in receipt.done] == targets[:1]
    for job, says in ((done, "ops-demo: retry"), (skipped, "ops-demo: retry, skipped (illegal)")):
        forensics = soup(get(f"/forensics/job/{job.id}").text)
        for told in (_section(get, job, "history"), forensics):
            words = " ".join(told.text.split())
            assert says in words
            assert ("skipped (" in words) is (job is skipped)
    # A subject with both targets, of which one was retried.
    (event,) = list_events_of(session, targets[0])
    assert tell_decision(event, targets).text == "ops-demo: retry"


@pytest.mark.parametrize("state", MANAGED_STATES)
def test_the_buttons_are_what_is_legal_now(
    state: str, get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    access.held -= {"job.delete", "job.discard"}
    buttons = soup(get(f"/jobs/{jobs[state].id}").text).select("#part .head .actions button")
    # A repair has a button where something is broken only: none of these jobs has lost its worker.
    legal = [a for a in actions_of("job", state) if not (a.params or a.is_repair)]
    assert [" ".join(button.text.split()) for button in buttons] == [
        f"{a.title} needs {a.name}" if a.name in ("job.delete", "job.discard") else f"{a.title}…"
        for a in legal
    ]
    for button, action in zip(buttons, legal, strict=True):
        if button.has_attr("disabled"):
            continue
        assert button["formaction"] == f"/ops/jobs/jobs/{jobs[state].id}/{action.short_name}"


@pytest.mark.parametrize("state", STATES)
def test_a_waiting_job_has_a_form_for_its_due_time(
    state: str, get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    path = f"/jobs/{jobs[state].id}"
    page = soup(get(path).text)
    panel = page.select_one("#part [aria-labelledby=reschedule-title]")
    if state not in sources_of("reschedule"):
        assert panel is None
        return
    assert panel.find_next("section")["aria-labelledby"] == "attempts", "above what happened"
    field, (at, *others) = panel.select_one("input[name=due_at]"), panel.select("button")
    assert field.has_attr("required")
    assert field["form"] == at["form"]
    assert page.find("form", id=field["form"])["action"] == f"/ops/jobs{path}/reschedule"
    # A job that is due already is not made due again: its preview would change nothing.
    assert len(others) == (state not in ("available", "queued"))
    for now in others:
        assert (now["name"], now["value"]) == ("due_at", "now")
        assert now["formaction"] == f"/ops/jobs{path}/reschedule"
    access.held -= {"job.reschedule"}
    panel = soup(get(path).text).select_one("[aria-labelledby=reschedule-title]")
    assert "Reschedule needs job.reschedule" in " ".join(panel.text.split())
    assert panel.button.has_attr("disabled")


@pytest.mark.parametrize("state", STATES)
def test_the_raw_page_has_every_column(state: str, get: Get, jobs: dict[str, Job]) -> None:
    tree = soup(get(f"/jobs/{jobs[state].id}/raw").text)
    tables = tree.select("table.raw")
    names = [[th.text for th in table.select("tbody th")] for table in tables]
    assert names[0] == [column.name for column in Job.__table__.columns]
    assert names[1:] == [[column.name for column in Attempt.__table__.columns]] * (len(tables) - 1)
    if state == "failed":
        assert len(tables) == 3
        assert "site-packages/urllib3" in tree.text
        assert "no answer for 30 s" in tree.text


@pytest.mark.parametrize("path", ["/jobs/0/raw", "/jobs/x/raw", "/jobs/99999999999999999999/raw"])
def test_no_job_has_no_raw_page(path: str, get: Get) -> None:
    assert "There is no job" in get(path, 404).text
