"""Plain RQ jobs with rows of ours, in every state: no loop, worker or action of managed jobs moves one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg.rows import dict_row
from sqlalchemy.orm import Session

from flask_opsjobs import endings
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.engine.reconcile.recall import recall_paused
from flask_opsjobs.engine.worker.claim import claim
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import ASKED_OF_RQ, FINAL, STATES
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import RETURNED, Outcome
from flask_opsjobs.lifeline.disown import list_started
from flask_opsjobs.lifeline.retention import count_retainable, retain
from flask_opsjobs.lifeline.watch import list_abandoned
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.overview.queries import find_overview
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.workers import transitions as workers
from tests.support.engine import Bench, take
from tests.web.every import good, reads
from tests.web.rows import ago, make_attempt, make_job, make_worker
from tests.web.rows import paused as is_paused

# An adopted job is never available: no dispatcher picks it.
ADOPTED_STATES = [state for state in STATES if state != "available"]
QUEUE = "plain"


@pytest.fixture
def adopted(session: Session, bench: Bench) -> dict[str, Job]:
    """An adopted job of every state, by state, as tempting as can be: due long ago, dispatched long ago,
    asked to stop, with the numbers of a delivery, and begun by a worker of ours that is missing.
    """
    gone = make_worker(session, "missing", queues=["other"])
    wish = {
        "cancel_requested_at": ago(hours=2),
        "cancel_requested_by": "anna",
        "cancel_reason": "it is wrong",
    }
    made = {}
    for state in ADOPTED_STATES:
        made[state] = make_job(
            session,
            state,
            origin="rq",
            queue=QUEUE,
            task="billing.legacy.export",
            due_at=ago(days=1),
            deadline_at=ago(hours=3),
            created_at=ago(days=1),
            dispatch_no=1,
            dispatched_at=ago(hours=5),
            started_at=ago(hours=4) if state in ("started", *FINAL) else None,
            ended_at=ago(hours=1) if state in FINAL else None,
            worker_id=gone.id if state == "started" else None,
            **(wish if state in ("queued", "started") else {}),
        )
    make_attempt(session, made["started"], None, worker_id=gone.id)
    make_job(session, "started", origin="rq", queue=QUEUE, dispatch_no=1, worker_id=bench.worker_id)
    session.commit()
    return made


def _run(bench: Bench, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with bench.connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.load(statement), parameters).fetchall()


def _rows(bench: Bench) -> list[dict[str, Any]]:
    return bench.rows("SELECT * FROM opsjobs.jobs WHERE origin = 'rq' ORDER BY id")


@pytest.fixture
def untouched(bench: Bench, adopted: dict[str, Job]) -> Callable[[], None]:
    """Asserts that each adopted row and attempt is as it was."""

    def attempts() -> list[dict[str, Any]]:
        return bench.rows("SELECT * FROM opsjobs.attempts ORDER BY job_id, dispatch_no")

    rows_before, attempts_before = _rows(bench), attempts()
    assert len(rows_before) == len(ADOPTED_STATES) + 1

    def check() -> None:
        assert _rows(bench) == rows_before
        assert attempts() == attempts_before

    return check


@pytest.mark.parametrize("is_queue_paused", [False, True])
def test_no_loop_moves_one(
    bench: Bench, session: Session, untouched: Callable[[], None], is_queue_paused: bool
) -> None:
    managed = make_job(session, "finished", queue=QUEUE)
    bench.connection.execute(
        "INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued) VALUES (now(), %s, 1)", [QUEUE]
    )
    if is_queue_paused:
        session.add(Queue(name=QUEUE, created_at=ago(days=1), **is_paused()))
    session.commit()
    now = read_clock(bench.connection)
    runners = [Runner(loop, bench.host, "one") for loop in LOOPS]
    for minutes in (0, 1, 20):  # what is lost or held by nobody is believed at a second look
        for runner in runners:
            runner.run_once(bench.connection, now + timedelta(minutes=minutes))
    errors = bench.rows("SELECT loop, error FROM opsjobs.loop_runs WHERE error IS NOT NULL")
    assert errors == []
    untouched()
    check = bench.row("SELECT * FROM opsjobs.integrity_checks WHERE queue = %s", QUEUE)
    assert (check["enqueued"], check["deleted"], check["stored"]) == (1, 0, 1)
    assert (check["waiting"], check["queued"], check["started"]) == (0, 0, 0)
    compared = ("queued_nowhere", "started_unreserved", "orphan_deliveries")
    assert [check[each] for each in compared] == [0, 0, 0]
    assert bench.job(managed.id)["state"] == "finished"


def test_no_worker_takes_claims_or_ends_one(bench: Bench, untouched: Callable[[], None]) -> None:
    now = read_clock(bench.connection)
    assert bench.dispatch_all() == 0
    assert bench.dispatch(QUEUE, prefetch=100) == 0
    assert take(bench, 10, QUEUE) == []
    ids = [row["id"] for row in _rows(bench)]
    deliveries = [(id, 1) for id in ids]
    for delivery in deliveries:
        assert not isinstance(claim(bench.connection, delivery, bench.worker_id, "w"), Claimed)
    numbers = {"ids": ids, "dispatch_nos": [1] * len(ids), "worker_id": bench.worker_id}
    for row in _run(bench, "reserve_deliveries", numbers):
        assert (row["id"], row["why_not"]) == (None, "no_row")
    begun = {**numbers, "ago": [0.0] * len(ids), "pids": [1] * len(ids), "worker": "w"}
    assert _run(bench, "begin_jobs", {**begun, "is_durable": False}) == []
    outcomes = [Outcome(kind="returned"), Outcome(kind="raised", error="Boom"), RETURNED]
    for outcome in outcomes:
        ended = [EndedAttempt(id, 1, bench.worker_id, "w", outcome, 1, 0.0, 1.0) for id in ids]
        assert endings.write_outcomes(bench.connection, ended, now) == []
        assert endings.finish(bench.connection, ended, now) == []
    assert endings.give_back(bench.connection, deliveries, bench.worker_id, now) == []
    assert _run(bench, "list_reserved_by", {"worker_id": bench.worker_id}) == []
    untouched()


def test_no_repair_takes_one(bench: Bench, adopted: dict[str, Job], untouched: Any) -> None:
    now = read_clock(bench.connection)
    ids = [row["id"] for row in _rows(bench)]
    deliveries = [(id, 1) for id in ids]
    owners = [bench.worker_id, adopted["started"].worker_id or 0]
    assert endings.rescue(bench.connection, owners, now, "gone") == []
    assert endings.rescue_reserved(bench.connection, owners, now, now) == []
    assert endings.expire(bench.connection, now) == []
    assert endings.expire(bench.connection, now, ids=ids) == []
    assert endings.count_failed_deliveries(bench.connection, deliveries, now) == []
    assert endings.cancel(bench.connection, ids, now, "no need") == []
    assert endings.discard(bench.connection, ids, now, "no need") == []
    assert recall(bench.connection, deliveries) == []
    assert recall_paused(bench.connection) == []
    assert list_abandoned(bench.connection) == []
    assert list_started(bench.connection, bench.worker_id) == []
    # Neither a wish to stop nor the absence from its heartbeat concerns the worker.
    asked = workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(1), now
    )
    assert asked == workers.Requests(is_drained=False, stops=[])
    assert workers.find_lost(bench.connection, bench.worker_id, deliveries) == set(deliveries)
    valid = {"ids": ids, "dispatch_nos": [1] * len(ids)}
    assert _run(bench, "find_valid_deliveries", valid) == []
    untouched()


def test_their_queue_needs_no_worker_of_ours(
    bench: Bench, host: Host, session: Session, adopted: dict[str, Job]
) -> None:
    now = read_clock(bench.connection)
    assert "queues" not in find_badges(session, now, host.settings.late_seconds)
    found = find_overview(session, now, host.settings.late_seconds)
    (queue,) = [queue for queue in found.queues if queue.name == QUEUE]
    assert queue.states["queued"].count.number == 1, "it is counted all the same"
    assert not queue.is_unserved
    assert found.abandoned == 0
    assert found.next_due is None
    make_job(session, "available", queue=QUEUE)
    session.flush()
    assert "queues" in find_badges(session, now, host.settings.late_seconds)


@pytest.mark.slow
def test_every_page_shows_them(client: FlaskClient, adopted: dict[str, Job]) -> None:
    for url, path in reads(adopted):
        # Pages about a preview, a batch or a run are of those that this database does not have.
        if "<job_id>" in url.rule or "<" not in url.rule:
            assert client.get(path).status_code == good(url), path


# Of the others RQ is asked, as tests/actions/test_adopted_jobs.py shows.
PARAMS = {"reschedule": ("--due-at", "now"), "edit": ("--priority", "1")}
ONLY_MANAGED = [action for action in actions_of("job") if action.short_name not in ASKED_OF_RQ]


@pytest.mark.parametrize("action", ONLY_MANAGED, ids=lambda action: action.short_name)
def test_no_action_of_managed_jobs_changes_one(
    app: Flask, adopted: dict[str, Job], untouched: Any, action: Any
) -> None:
    name = action.short_name.replace("_", "-")
    params = PARAMS[name] if action.params else ()
    ids = [str(job.id) for job in adopted.values()]
    words = ["job", name, *ids, *params, "--reason", "because it is a test"]
    done = app.test_cli_runner().invoke(group, words)
    assert done.exit_code == 1, done.output
    untouched()


@pytest.mark.parametrize(
    "words",
    [
        ("workers",),
        ("cron", "list"),
        ("limiter", "list"),
        ("retain", "--dry-run"),
        ("audit", "verify"),
    ],
    ids=" ".join,
)
def test_every_other_command_leaves_them_alone(
    app: Flask, adopted: dict[str, Job], untouched: Any, words: tuple[str, ...]
) -> None:
    done = app.test_cli_runner().invoke(group, list(words))
    assert done.exit_code in (0, 1), done.output
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
    untouched()


@pytest.mark.parametrize("state", ADOPTED_STATES)
def test_why_says_nothing_that_is_true_of_managed_jobs_only(
    app: Flask, adopted: dict[str, Job], state: str
) -> None:
    done = app.test_cli_runner().invoke(group, ["why", str(adopted[state].id)])
    assert done.exit_code == 0, done.output
    for words in ("recall loop", "watch loop", "expire loop", "dispatch loop", "is lost"):
        assert words not in done.output


def test_retention_removes_them_as_others_and_counts_only_managed_jobs(
    bench: Bench, session: Session, adopted: dict[str, Job]
) -> None:
    make_job(session, "finished", queue=QUEUE, ended_at=ago(days=200))
    session.commit()
    settings = replace(
        bench.host.settings, keep_finished_days=0, keep_failed_days=0, keep_canceled_days=0
    )
    now = read_clock(bench.connection)
    wanted = count_retainable(bench.connection, settings, now)
    assert {what: wanted[f"{what} jobs"] for what in FINAL} == {
        "finished": 2,
        "failed": 1,
        "canceled": 1,
        "unknown": 1,
    }
    while any(retain(bench.connection, settings, now).values()):
        pass
    left = {row["state"] for row in _rows(bench)}
    assert left == set(ADOPTED_STATES) - set(FINAL)
    deleted = bench.row("SELECT sum(deleted) AS n FROM opsjobs.job_count_deltas")
    assert deleted["n"] == 1
