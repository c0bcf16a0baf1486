"""The badges of the navigation say what needs somebody, and cost the same however many jobs there are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from flask_opsjobs.overview.badges import Badge, find_badges
from flask_opsjobs.queues.models import Queue
from tests.web.rows import ago, make_job, make_pause, make_run, make_worker, paused


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.engine) as session:
        yield session


def _badges(session: Session) -> dict[str, Badge]:
    return dict(find_badges(session, datetime.now(UTC), 45))


def test_nothing_needs_anybody(session: Session) -> None:
    assert _badges(session) == {}
    make_job(session, "finished")
    make_job(session, "scheduled", queue="elsewhere")
    make_job(session, "started", queue="elsewhere")
    make_job(session, queue="crm")
    make_worker(session, queues=["crm"])
    session.add(Queue(name="quiet", created_at=ago(days=1), **paused()))
    assert _badges(session) == {}


def test_failed_jobs_need_review_unless_somebody_decided(session: Session) -> None:
    make_job(session, "failed")
    make_job(session, "failed", ended_by="discarded")
    assert _badges(session)["jobs"] == Badge(1, "review", "needs review")
    make_job(session, "failed")
    assert _badges(session)["jobs"] == Badge(2, "review", "need review")


@pytest.mark.parametrize("state", ["available", "queued"])
def test_a_queue_that_nobody_serves(session: Session, state: str) -> None:
    make_worker(session, queues=["crm"])
    make_worker(session, "missing", queues=["reports"], ended_at=ago(days=2))
    make_job(session, state, queue="crm")
    make_job(session, state, queue="reports")
    make_job(session, state, queue="reports", lane="reports/partition 7")
    assert _badges(session) == {"queues": Badge(1, "blocked", "queue without a worker")}


def test_paused_and_unserved_queues_share_a_badge(session: Session) -> None:
    make_worker(session, queues=["crm"])
    session.add(Queue(name="crm", created_at=ago(days=1), **paused()))
    make_job(session, queue="crm")
    assert _badges(session) == {"queues": Badge(1, "blocked", "queue paused with due jobs")}
    make_job(session, queue="reports")
    words = "queues: 1 without a worker, 1 paused with due jobs"
    assert _badges(session) == {"queues": Badge(2, "blocked", words)}


def test_paused_tasks_count_also_without_a_job(session: Session) -> None:
    """Slots of their cron entries are skipped."""
    session.add(make_pause("send"))
    session.flush()
    assert _badges(session) == {"tasks": Badge(1, "blocked", "task paused")}
    session.add(make_pause("report"))
    session.flush()
    assert _badges(session) == {"tasks": Badge(2, "blocked", "tasks paused")}


def test_missing_workers_count_for_a_day(session: Session) -> None:
    make_worker(session, "missing", started_at=ago(days=100), ended_at=ago(hours=23))
    make_worker(session, "missing", ended_at=ago(hours=25))
    make_worker(session, "late")
    assert _badges(session) == {"workers": Badge(1, "missing", "worker missing")}


def test_runs_that_need_a_person_are_counted_up_to_a_hundred(session: Session) -> None:
    for number in range(101):
        make_run(session, {"a": 900_000 + number}, trouble="KeyError: 'x'")
    assert _badges(session) == {
        "workflows": Badge(100, "review", "or more runs need a person: 100 cannot go on")
    }
