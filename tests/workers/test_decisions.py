"""What operators decide about workers: drain and forget, in each state, and what a worker then knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS, actions_of
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.explain_with_redis import explain
from flask_opsjobs.host import Host
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.workers import transitions as workers
from flask_opsjobs.workers.lifecycle import ENDED, STATES, sources_of
from flask_opsjobs.workers.queries import list_stopped, list_workers
from tests.support.engine import Bench, race, take

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
RecordJob = Callable[..., int]


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


def row(bench: Bench) -> dict[str, Any]:
    return bench.row("SELECT * FROM opsjobs.workers WHERE id = %s", bench.worker_id)


def be(bench: Bench, state: str) -> None:
    ended_at = read_clock(bench.connection) if state in ENDED else None
    bench.rows(
        "UPDATE opsjobs.workers SET state = %s, ended_at = %s WHERE id = %s RETURNING 1",
        state,
        ended_at,
        bench.worker_id,
    )


def beat(bench: Bench, number: int = 1) -> workers.Requests:
    now = read_clock(bench.connection)
    return workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(number), now
    )


def names(bench: Bench) -> list[str]:
    """The workers that the page shows."""
    now = read_clock(bench.connection)
    with Session(bench.host.engine) as session:
        found = [*list_workers(session, now, 45), *list_stopped(session, now)]
    return [worker.name for worker in found]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", actions_of("worker"), ids=lambda action: action.short_name)
def test_each_action_in_each_state(
    bench: Bench, operator: Operator, action: Any, state: str
) -> None:
    be(bench, state)
    before = row(bench)
    receipt = operator.run(action.name, [f"worker/{bench.name}"], **WHY)
    after = row(bench)
    if state not in sources_of(action.short_name):
        assert (receipt.outcome, receipt.code) == ("refused", "illegal")
        assert receipt.says == f"cannot {action.short_name} worker worker-1: it is {state}"
        assert after == before
    else:
        assert receipt.is_done
        assert after["state"] == state
        column = {"drain": "drain_requested_at", "forget": "forgotten_at"}[action.short_name]
        assert after[column] is not None
        again = operator.run(action.name, [f"worker/{bench.name}"], **WHY)
        assert [skip.code for skip in again.skipped] == ["already"]
    assert (action in actions_of("worker", state)) == (state in sources_of(action.short_name))


@pytest.mark.parametrize("name", ["worker.drain", "worker.forget"])
def test_one_that_nobody_knows(bench: Bench, operator: Operator, name: str) -> None:
    receipt = operator.run(name, ["worker/nobody"], **WHY)
    assert (receipt.code, receipt.says) == ("unknown_target", "there is no worker nobody")


# --- drain


def test_a_drained_worker_hears_of_it_in_both_ways(bench: Bench, operator: Operator) -> None:
    assert not beat(bench).is_drained
    operator.drain_worker(bench.name, **WHY)
    assert row(bench)["drain_requested_by"] == "anna"
    assert beat(bench, 2) == workers.Requests(is_drained=True, stops=[])
    assert workers.read_requests(bench.connection, bench.worker_id).is_drained
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["action"], event["subject"]) == ("worker.drain", "worker/worker-1")


def test_both_requests_come_together(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    operator.cancel(job_id, **WHY)
    operator.drain_worker(bench.name, **WHY)
    assert beat(bench) == workers.Requests(is_drained=True, stops=[(job_id, 1)])


def test_a_plain_worker_is_not_ours_to_drain(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now)
    receipt = operator.run("worker.drain", ["worker/rq-1"], **WHY)
    assert receipt.says.endswith("it is a plain rq worker: stop it as you started it")


def test_a_drained_worker_is_alive_and_listens_no_more(
    bench: Bench, host: Host, operator: Operator, record_job: RecordJob
) -> None:
    """So the page does not call it late, its running job has no silent worker, and others know."""
    running, waiting = record_job(), record_job()
    bench.dispatch(prefetch=1)
    bench.claim(running)
    operator.drain_worker(bench.name, **WHY)
    now = read_clock(bench.connection)
    with Session(host.engine) as session:
        (worker,) = list_workers(session, now, 45)
        assert (worker.state, worker.is_alive, worker.is_listening) == ("alive", True, False)
        of_running = explain(host, session, running, now)
        of_waiting = explain(host, session, waiting, now)
        badges = find_badges(session, now, 45)
    assert of_running is not None
    assert of_running.reasons == ()
    assert of_waiting is not None
    assert "no_live_worker" in [reason.code for reason in of_waiting.reasons]
    assert badges["queues"].says == "queue without a worker"


def test_a_restarted_worker_of_the_same_name_is_not_drained(
    bench: Bench, host: Host, operator: Operator
) -> None:
    operator.drain_worker(bench.name, **WHY)
    workers.stop(bench.connection, bench.worker_id, read_clock(bench.connection))
    again = Bench(host, bench.name)
    assert again.worker_id == bench.worker_id
    again.close()
    assert row(bench)["drain_requested_at"] is None
    assert not beat(bench).is_drained


# --- forget


@pytest.mark.parametrize("state", ENDED)
def test_a_forgotten_worker_is_shown_nowhere(
    bench: Bench, host: Host, operator: Operator, state: str
) -> None:
    be(bench, state)
    assert names(bench) == [bench.name]
    operator.forget_worker(bench.name, **WHY)
    assert names(bench) == []
    with Session(host.engine) as session:
        assert "workers" not in find_badges(session, read_clock(bench.connection), 45)


def test_a_heartbeat_shows_it_again(bench: Bench, operator: Operator) -> None:
    be(bench, "missing")
    operator.forget_worker(bench.name, **WHY)
    beat(bench)
    assert (row(bench)["state"], row(bench)["forgotten_at"]) == ("alive", None)
    assert names(bench) == [bench.name]


def test_a_plain_worker_that_comes_back_is_shown_again(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    plain = workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now)
    bench.rows("UPDATE opsjobs.workers SET state = 'missing', ended_at = now() RETURNING 1")
    operator.forget_worker("rq-1", **WHY)
    assert workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now) == plain
    assert "rq-1" in names(bench)


def test_one_that_left_jobs_is_not_forgotten(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    started = record_job()
    bench.dispatch()
    bench.claim(started)
    reserved = record_job()
    take(bench)
    be(bench, "missing")
    receipt = operator.run("worker.forget", [f"worker/{bench.name}"], **WHY)
    assert receipt.says.endswith("it left 2 jobs: rescue them first")
    later = read_clock(bench.connection) + timedelta(minutes=10)
    targets = [f"job/{started}", f"job/{reserved}"]
    assert len(operator.run("job.rescue", targets, **WHY, now=later).done) == 2
    assert operator.forget_worker(bench.name, **WHY).is_done


@pytest.mark.parametrize("time", range(8))
def test_forgotten_against_a_heartbeat(
    bench: Bench, host: Host, operator: Operator, time: int
) -> None:
    be(bench, "missing")
    receipt, _ = race(
        lambda: operator.run("worker.forget", [f"worker/{bench.name}"], **WHY), lambda: beat(bench)
    )
    found = row(bench)
    assert (found["state"], found["forgotten_at"]) == ("alive", None)
    assert receipt.is_done or receipt.says.endswith("it is alive")


def test_the_registry_has_both() -> None:
    assert [name for name in ACTIONS if name.startswith("worker.")] == [
        "worker.drain",
        "worker.forget",
    ]
