"""The first page: the worst in one sentence, and numbers that agree with the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.queues.models import Queue
from tests.web.every import soup
from tests.web.rows import ago, make_executor, make_job, make_loops

Get = Callable[..., Any]


def _said(get: Get) -> tuple[str, str]:
    """The status and the words of the sentence at the top."""
    say = soup(get().text).select_one(".say")
    assert say is not None
    return str(say["data-is"]), " ".join(say.text.split())


def _well(session: Session) -> None:
    make_loops(session)
    make_executor(session, queues=["default"])
    session.commit()


def test_all_is_well(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "finished")
    session.commit()
    assert _said(get) == (
        "healthy",
        "Nothing needs a person. Nothing failed in the last hour, every loop is awake, "
        "1 worker has a sign of life.",
    )


def test_no_loop_has_run(get: Get) -> None:
    level, words = _said(get)
    assert level == "open"
    assert words.startswith("No loop has ever run.")
    assert "flask opsjobs run" in words


def test_all_loops_are_silent(session: Session, get: Get) -> None:
    make_loops(session, last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("No loop is awake.")


def test_one_loop_is_silent(session: Session, get: Get) -> None:
    _well(session)
    make_loops(session, last_at=ago(minutes=-1))
    make_loops(session, loop="vacuum", last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("The loop vacuum is silent.")


def test_a_queue_with_due_jobs_and_nobody_listening(session: Session, get: Get) -> None:
    _well(session)
    make_executor(session, "missing", queues=["reports"])
    for state in ("available", "queued"):
        make_job(session, state, queue="reports")
    make_job(session, "scheduled", queue="elsewhere")
    session.commit()
    level, words = _said(get)
    assert level == "open"
    assert words.startswith("Queue reports has 2 due jobs and no live worker.")
    assert "flask opsjobs worker reports" in words
    assert "other queue" not in words
    assert "See its jobs" in words


def test_failures_of_the_last_hour(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "failed", ended_at=ago(minutes=50), worker="send_receipt")
    make_job(session, "failed", ended_at=ago(minutes=70))
    session.commit()
    assert _said(get) == (
        "open",
        "1 job failed in the last hour. The last one: send_receipt. See the failed jobs",
    )
    cell = soup(get().text).select_one(".cell")
    assert cell is not None
    assert cell.select_one(".count").text == "2"


@pytest.mark.parametrize(
    ("state", "words"),
    [("missing", "went missing within a day."), ("late", "is late with a sign of life.")],
)
def test_a_worker_that_is_not_well(state: str, words: str, session: Session, get: Get) -> None:
    _well(session)
    make_executor(session, state, name="web-3:4121")
    session.commit()
    assert _said(get)[0] == "warned"
    assert f"Worker web-3:4121 {words}" in _said(get)[1]


def test_a_paused_queue_matters_when_it_has_due_jobs(session: Session, get: Get) -> None:
    _well(session)
    session.add(Queue(name="reports", is_paused=True, created_at=ago(days=1)))
    session.commit()
    assert _said(get)[0] == "healthy"
    make_job(session, queue="reports")
    session.commit()
    assert _said(get)[1].startswith("Queue reports is paused with due jobs.")


def test_a_loop_whose_pass_failed(session: Session, get: Get) -> None:
    make_executor(session)
    make_loops(session, error="OperationalError: no route")
    session.commit()
    assert "failed in the last pass" in _said(get)[1]
    assert "OperationalError: no route" in get().text


def test_no_worker_runs(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    assert _said(get) == ("warned", "No worker is running. Start one: flask opsjobs worker.")


def test_depth_agrees_with_the_rows(session: Session, get: Get) -> None:
    _well(session)
    for state, many in (("available", 3), ("scheduled", 2), ("started", 1)):
        for _ in range(many):
            make_job(session, state, queue="crm")
    make_job(session, "finished", queue="crm")
    make_job(session, "deferred", queue="mail")
    session.commit()
    table = soup(get().text).select_one("[aria-labelledby=queues] table")
    rows = [[cell.text.strip() for cell in row.select("th, td")] for row in table.select("tr")]
    assert rows == [
        ["Queue", "deferred", "scheduled", "available", "queued", "started", "retryable", "Workers", "Oldest due"],
        ["crm", "0", "2", "3", "0", "1", "0", "none", "20 min"],
        ["default", "0", "0", "0", "0", "0", "0", "1", ""],
        ["mail", "1", "0", "0", "0", "0", "0", "0", ""],
        ["All", "1", "2", "3", "0", "1", "0", "1", ""],
    ]  # fmt: skip


def test_a_backlog_is_counted_up_to_a_limit_only(session: Session, get: Get) -> None:
    from tests.test_query_plans import fill

    _well(session)
    fill(session, 10_050, "available", queue="crm")
    fill(session, 50, "available", queue="mail")
    session.commit()
    cells = {
        row.th.text.strip(): row.select_one("[data-label=available]").text
        for row in soup(get().text).select("table tr:has([data-label=available])")
    }
    # What is beyond the limit is not looked at, and the numbers say so.
    assert cells == {"crm": "10,000+", "default": "0+", "mail": "0+", "All": "10,000+"}


def test_workers_show_what_they_have_in_hand(session: Session, get: Get) -> None:
    make_executor(session, holding=["12-1", "13-7", "14-1", "15-1", "nonsense"], queues=["a", "b"])
    session.commit()
    row = soup(get().text).select_one("[aria-labelledby=workers] tbody tr")
    assert row is not None
    assert [a.text for a in row.select("a")] == ["12", "13", "14"]
    assert "and 1 more" in row.text
    assert "a, b" in row.text
