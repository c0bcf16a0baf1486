"""One job in full: its error first, its attempts, what its state means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.lifecycle import ENDED_BY, MEANINGS, OUTCOMES, STATES
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.queries import find_job, list_attempts
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.web._timeline import WIDTH, timeline
from flask_opsjobs.web._traceback import condense
from tests.web.every import soup
from tests.web.rows import TRACEBACK, ago, make_attempt, make_job, make_output

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
    job = make_job(session, "failed", ended_by=ended_by, ended_reason="for a reason", error=None)
    session.commit()
    words = _words(get, job)
    assert f"{ENDED_BY[ended_by].capitalize()}." in words
    assert "for a reason" in words


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_of_an_attempt_has_a_word(outcome: str, get: Get, session: Session) -> None:
    job = make_job(session, "retryable")
    make_attempt(session, job, outcome, cause="signal 9", max_rss_kb=91_000)
    session.commit()
    row = soup(get(f"/jobs/{job.id}").text).select_one("[aria-labelledby=attempts] tbody tr")
    assert row is not None
    assert row.select_one(".chip").text.strip()
    assert "signal 9" in row.text
    assert "93.2 MB" in row.text


def test_the_error_comes_first_and_says_where(get: Get, jobs: dict[str, Job]) -> None:
    tree = soup(get(f"/jobs/{jobs['failed'].id}").text)
    first = tree.select_one("#part section")
    assert "err" in first["class"]
    assert "GatewayTimeout: no answer" in first.h2.text
    frames = [" ".join(row.text.split()) for row in first.select(".frames tr")]
    assert frames == [
        "billing/workers.py:41process_invoicereceipt = gateway.charge(account, invoice)",
        "2 frames in requests, urllib3",
        'billing/gateway.py:64_postraise GatewayTimeout("customer-api did not answer in 30 s") from e',
    ]
    assert "site-packages/requests" in first.select_one("pre").text


def test_a_paused_queue_and_a_wish_to_cancel_are_said(get: Get, session: Session) -> None:
    session.add(Queue(name="mail", is_paused=True, created_at=ago()))
    job = make_job(
        session, queue="mail", cancel_requested_at=ago(minutes=3), deadline_at=ago(hours=-5)
    )
    session.commit()
    words = _words(get, job)
    assert "Its queue is paused" in words
    assert "Somebody asked to cancel it 3 min ago." in words
    assert "before its deadline, in 4 h, it fails" in words


def test_progress_output_and_facts_are_shown(get: Get, session: Session) -> None:
    job = make_job(
        session, "started", tags=["eu"], timeout_seconds=30, unique_key=b"k", dispatch_no=7
    )
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
    assert "its key is kept as a receipt" in words
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
        make_attempt(session, job, "raised", dispatch_no=number, attempt=number,
            started_at=begun, ended_at=begun + timedelta(seconds=30))  # fmt: skip
    session.flush()
    found = find_job(session, job.id)
    assert found is not None
    line = timeline(list_attempts(session, job.id), found, start)
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
    assert timeline(list_attempts(session, job.id)[:1], found, start) is None


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
