"""Who listens to a queue: one statement answers,
so no two places can say different things of one heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.engine.explain_with_redis import explain_apart
from flask_opsjobs.explain.reason_kinds import Explanation
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.watch import watch
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.overview.blocks import split_blocks
from flask_opsjobs.overview.queries import find_overview
from flask_opsjobs.workers import transitions as workers
from tests.support.engine import Bench
from tests.web.every import soup

RecordJob = Callable[..., int]


def _beat(bench: Bench, ago: timedelta) -> datetime:
    """The worker's heartbeat, by its own writer, so long before the moment that is returned."""
    now = read_clock(bench.connection)
    workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(1), now - ago
    )
    bench.connection.execute("UPDATE opsjobs.workers SET processes = 50")
    return now


def _answers(bench: Bench, host: Host, job_id: int, now: datetime, get: Any) -> dict[str, bool]:
    """What each place says: does anybody listen to the queue of the job?"""
    late_seconds = host.settings.late_seconds
    with Session(host.engine) as session:
        badge = find_badges(session, now, late_seconds).get("queues")
        (depth,) = find_overview(session, now, late_seconds).queues
    row = soup(get("/queues").text).select_one("tbody td[data-label=workers]")
    assert row is not None
    page = soup(get("/queues/default").text).select_one("#part .lead")
    assert page is not None
    found = explain_apart(host, job_id)
    assert isinstance(found, Explanation)
    why = [reason.code for reason in found.reasons]
    answers = {
        "badge": badge is None,
        "overview": depth.listeners == 1,
        "queues": row.text.strip() == "1",
        "queue": "1 worker listening" in page.text,
        "why": "no_live_worker" not in why,
    }
    # The prefetch is twice the children of those who listen, here a hundred jobs; else it is two.
    return answers | {"dispatch": bench.dispatch() == 3}


@pytest.fixture
def get(app: Any) -> Callable[[str], Any]:
    return lambda path: app.test_client().get(f"/ops/jobs{path}")


@pytest.mark.parametrize(("seconds", "listens"), [(400, True), (500, False)])
@pytest.mark.parametrize("state", ["alive", "late"])
def test_all_places_judge_a_heartbeat_alike(
    state: str,
    seconds: float,
    listens: bool,
    bench: Bench,
    host: Host,
    record_job: RecordJob,
    get: Any,
) -> None:
    """Whatever the watch loop said last: it may be asleep, or not have seen yet that the worker is back."""
    # Pages read their own clock, so the limit is far from what they see however slow they are.
    host.settings = replace(host.settings, late_seconds=450, missing_seconds=1200)
    job_id, *_ = [record_job() for _ in range(3)]
    now = _beat(bench, timedelta(seconds=seconds))
    if state == "late":
        for _ in range(25):  # it counts the time in which the number of the heartbeat stands still
            watch(bench.connection, now, 20, host.settings, host.secrets)
        assert bench.row("SELECT state FROM opsjobs.workers")["state"] == "late"
    answers = _answers(bench, host, job_id, now, get)
    assert set(answers.values()) == {listens}, answers


def _moment_without_worker(bench: Bench, host: Host) -> datetime | None:
    """Since when the overview says that due jobs of the queue have no live worker."""
    now = read_clock(bench.connection)
    with Session(host.engine) as session:
        found = split_blocks(find_overview(session, now, host.settings.late_seconds))
    (block,) = [block for block in found.blocks if block.kind == "worker"]
    return block.since


def test_a_recall_does_not_move_since_when_nobody_takes_a_queues_jobs(
    bench: Bench, host: Host, record_job: RecordJob
) -> None:
    """As after a restart of Redis: the deliveries are taken back and dispatched once more."""
    job_id = record_job()
    _beat(bench, timedelta(hours=2))
    due_at = bench.job(job_id)["due_at"]
    seen = [_moment_without_worker(bench, host)]
    for dispatch_no in (1, 2):
        bench.dispatch()
        seen.append(_moment_without_worker(bench, host))
        recall(bench.connection, [(job_id, dispatch_no)])
        seen.append(_moment_without_worker(bench, host))
    assert seen == [due_at] * 5


def test_a_worker_that_leaves_the_list_does_not_move_since_when_nobody_takes_jobs(
    bench: Bench, host: Host, record_job: RecordJob
) -> None:
    """A missing worker is on the overview for a day."""
    now = _beat(bench, timedelta(hours=26))
    record_job()
    before = _moment_without_worker(bench, host)
    bench.connection.execute(
        "UPDATE opsjobs.workers SET state = 'missing', ended_at = %s",
        (now - timedelta(hours=25),),
    )
    assert _moment_without_worker(bench, host) == before


def test_a_worker_that_stopped_listens_no_more(
    bench: Bench, host: Host, record_job: RecordJob, get: Any
) -> None:
    job_id, *_ = [record_job() for _ in range(3)]
    now = _beat(bench, timedelta(seconds=1))
    workers.stop(bench.connection, bench.worker_id, now)
    answers = _answers(bench, host, job_id, now, get)
    assert set(answers.values()) == {False}, answers
