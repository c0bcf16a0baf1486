"""The workers' page: who lives, what each is running and who may stop it, who is gone and what it left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.workers.queries import list_reserved, list_workers
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_attempt, make_job, make_worker

Get = Callable[..., Any]


def _part(get: Get) -> Any:
    return soup(get("/workers").text).find(id="part")


def _say(get: Get) -> str:
    return " ".join(_part(get).select_one(".say").text.split())


@pytest.fixture
def running(session: Session) -> Job:
    """A job in the hands of the worker web-1:7."""
    job = make_job(session, "started")
    worker = make_worker(
        session, name="web-1:7", pid=7, queues=["mail", "crm"], reserved=[f"{job.id}-1"]
    )
    job.worker_id = worker.id
    make_attempt(session, job, None, started_at=job.started_at)
    session.commit()
    return job


def test_nobody_there(get: Get) -> None:
    assert _say(get).startswith("No worker is alive.")
    assert "flask opsjobs worker" in _say(get)


def test_all_are_well(get: Get, running: Job) -> None:
    assert _say(get) == "1 worker alive, none late, none missing."


def test_one_is_late(get: Get, session: Session, running: Job) -> None:
    make_worker(session, "late")
    session.commit()
    assert _say(get).startswith("1 of 2 workers is late.")
    states = [row.select_one("td.end").text.strip() for row in _rows(get, "alive")]
    assert states == ["late", "alive"]


def _rows(get: Get, section: str) -> list[Any]:
    found: list[Any] = _part(get).select(f"[aria-labelledby={section}] tbody tr")
    return found


def test_a_live_one_in_full(get: Get, running: Job) -> None:
    (row,) = _rows(get, "alive")
    words = " ".join(row.text.split())
    for piece in ("web-1:7", "web-1, pid 7", "pool", "2026.11.3", "mail, crm", "86.0 MB"):
        assert piece in words
    assert f"{running.id} send_invoice since " in words
    since = row.select_one(".reserved time")
    assert since["datetime"] == f"{running.started_at:%Y-%m-%dT%H:%M:%SZ}"
    assert since["data-as"] == "for"
    # A narrow page has no head of the table: each cell but the name and the state says what it is.
    assert [cell.get("data-label") for cell in row.select("td")] == [
        None,
        "kind",
        "version",
        "queues",
        "running",
        "memory",
        "up for",
        "heartbeat",
    ]
    button = row.select_one("button")
    assert button.text == "Stop job…"
    assert button["formaction"] == f"/ops/jobs/jobs/{running.id}/cancel"


def test_stop_is_asked_for_with_the_job_as_subject_and_may_be_denied(
    get: Get, running: Job, access: Access
) -> None:
    access.held -= {"job.cancel"}
    (row,) = _rows(get, "alive")
    assert "needs job.cancel" in row.select_one("button[disabled]").text
    assert ("job.cancel", f"job/{running.id}") in access.asked


def test_a_job_that_is_being_stopped_says_so(get: Get, session: Session, running: Job) -> None:
    running.cancel_requested_at = ago(seconds=3)
    running.cancel_requested_by, running.cancel_reason = "anna", "it takes too long"
    session.commit()
    (row,) = _rows(get, "alive")
    assert "stopping" in row.text
    assert not row.select("button")


def test_what_became_of_the_jobs_of_a_missing_one(get: Get, session: Session) -> None:
    rescued = make_job(session, "available", dispatch_no=1)
    left = make_job(session, "started")
    done = make_job(session, "finished")
    gone = make_worker(
        session, "missing", reserved=[f"{job.id}-1" for job in (rescued, left, done)]
    )
    make_attempt(session, rescued, "lost", cause_of_death="worker vanished: no heartbeat")
    make_attempt(session, left, None)
    make_attempt(session, done, "returned")
    session.commit()
    assert _say(get).startswith("1 worker went missing in the last day. 0 are alive.")
    (row,) = _rows(get, "missing")
    words = " ".join(row.text.split())
    assert gone.name in words
    assert f"{rescued.id} send_invoice rescued, now available" in words
    assert f"{left.id} send_invoice not rescued yet, now started" in words
    assert f"{done.id} send_invoice returned, now finished" in words


def test_those_who_stopped_lately_are_listed_and_older_ones_are_not(
    get: Get, session: Session
) -> None:
    lately = make_worker(session, "stopped")
    make_worker(session, "stopped", ended_at=ago(days=2), started_at=ago(days=3))
    session.commit()
    (row,) = _rows(get, "stopped")
    assert lately.name in row.text
    assert "2 h 59 min" in row.text


def test_reserved_deliveries_that_no_heartbeat_of_ours_writes_are_passed_over(
    session: Session,
) -> None:
    odd = ["", "x", "1", "-", "1-", "-1", "1-2-3", "9" * 40 + "-1", "99-1", "opsjobs-1-1"]
    worker = make_worker(session, reserved=odd)
    session.commit()
    found = list_workers(session, ago(seconds=0), 45)
    assert list_reserved(session, found) == {worker.id: []}


def test_every_one_of_many_is_listed(get: Get, session: Session) -> None:
    for _ in range(30):
        job = make_job(session, "started")
        make_worker(session, reserved=[f"{job.id}-1"])
        make_attempt(session, job, None)
    session.commit()
    rows = _rows(get, "alive")
    assert len(rows) == 30
    assert all(len(row.select("button")) == 1 for row in rows)
