"""The checks of the jobs, with rows that others changed and a Redis that lost what it held."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import stage
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.headline import NOT_COUNTED
from tests.doctor.agreement import agree_on
from tests.doctor.conftest import Ask, shows
from tests.lifeline.detecting import Scene
from tests.support.engine import Bench

RecordJob = Callable[..., int]
WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test", "authorize": False}


@pytest.fixture
def compare(
    bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Counts the jobs and compares them with Redis, in passes a minute apart; the doctor asks after them."""
    scene = Scene(bench, "integrity_off", request.getfixturevalue)
    agree_on(scene, monkeypatch)

    def run() -> None:
        for _ in range(3):
            scene.wait(60)
            scene.run("check_integrity")

    return run


@shows("jobs.integrity_off")
def test_a_row_that_somebody_deleted(
    bench: Bench, record_job: RecordJob, compare: Callable[[], None], ask: Ask
) -> None:
    first, _ = record_job(), record_job()
    unknown = ask("jobs.integrity_off")
    assert (unknown.state, unknown.sentence) == ("skipped", NOT_COUNTED)
    compare()
    fine = ask("jobs.integrity_off")
    assert (fine.state, fine.evidence.startswith("As of 20")) == ("ok", True), fine
    Operator(bench.host).cancel(first, **WHY)
    Operator(bench.host).delete(first, **WHY)
    compare()
    assert ask("jobs.integrity_off").state == "ok", "it was deleted as it should be"
    bench.connection.execute("DELETE FROM opsjobs.jobs")
    compare()
    found = ask("jobs.integrity_off")
    assert (found.state, "1 job more" in found.evidence) == ("error", True), found


@shows("jobs.delivery_lost")
def test_a_delivery_that_redis_lost(
    bench: Bench,
    record_job: RecordJob,
    redis_client: Redis,
    compare: Callable[[], None],
    ask: Ask,
) -> None:
    record_job()
    bench.dispatch()
    compare()
    assert ask("jobs.delivery_lost").state == "ok", "it is in Redis"
    redis_client.flushall()
    compare()
    found = ask("jobs.delivery_lost")
    assert (found.state, "queued, but not in Redis" in found.evidence) == ("error", True), found
    assert ask("jobs.integrity_off").state == "ok", "its row is there"


@shows("jobs.orphan_delivery")
def test_a_delivery_without_a_job(
    bench: Bench, record_job: RecordJob, compare: Callable[[], None], ask: Ask
) -> None:
    # The comparison begins with the queues of queued jobs, so another one stays.
    job, _ = record_job(), record_job()
    bench.dispatch()
    compare()
    assert ask("jobs.orphan_delivery").state == "ok"
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [job])
    compare()
    found = ask("jobs.orphan_delivery")
    assert (found.state, "in Redis without a job" in found.evidence) == ("error", True), found


@shows("jobs.due")
def test_a_job_that_is_due_for_long(bench: Bench, record_job: RecordJob, ask: Ask) -> None:
    def be_due(minutes: int, **options: Any) -> None:
        now = read_clock(bench.connection)
        record_job(scheduled_at=now - timedelta(minutes=minutes), **options)
        Runner(stage.LOOP, bench.host, "one").run_once(bench.connection)

    be_due(14)
    assert ask("jobs.due").state == "ok"
    be_due(90, queue="mail")
    Operator(bench.host).pause("mail", **WHY)
    assert ask("jobs.due").state == "ok", "somebody wants it so"
    be_due(16, priority=3)
    found = ask("jobs.due")
    assert (found.state, found.run) == ("warning", "flask opsjobs worker default")
    assert found.sentence == "A job of the queue default has been due for 16 min."


@shows("jobs.paused")
def test_a_queue_that_is_paused_for_over_a_day(
    bench: Bench, record_job: RecordJob, ask: Ask
) -> None:
    record_job(queue="mail")
    operator, now = Operator(bench.host), read_clock(bench.connection)

    def pause(hours: int) -> None:
        operator.run("queue.pause", ["queue/mail"], now=now - timedelta(hours=hours), **WHY)

    pause(23)
    assert ask("jobs.paused").state == "ok"
    operator.resume("mail", **WHY)
    pause(25)
    found = ask("jobs.paused")
    assert (found.state, found.run) == ("warning", "flask opsjobs queue resume mail")


@shows("jobs.paused")
def test_a_task_that_is_paused_for_over_a_day(
    bench: Bench, record_job: RecordJob, ask: Ask
) -> None:
    """Beside a queue of which the same is true."""
    record_job(queue="mail")
    operator, now = Operator(bench.host), read_clock(bench.connection)

    def pause(kind: str, name: str, hours: int) -> None:
        at = now - timedelta(hours=hours)
        operator.run(f"{kind}.pause", [f"{kind}/{name}"], now=at, **WHY)

    pause("task", "note", 23)
    assert ask("jobs.paused").state == "ok"
    operator.run("task.resume", ["task/note"], **WHY)
    pause("task", "note", 25)
    found = ask("jobs.paused")
    assert (found.state, found.run) == ("warning", "flask opsjobs task resume note")
    pause("queue", "mail", 25)
    assert ask("jobs.paused").sentence == (
        "1 queue paused for over a day: mail. 1 task paused for over a day: note."
    )


@shows("jobs.unrecordable")
def test_an_outcome_that_could_not_be_written(
    bench: Bench, record_job: RecordJob, ask: Ask
) -> None:
    """No outcome is known that Postgres refuses: what the recorder writes in its place is written here."""
    for ended_by, state in ((None, "ok"), ("unrecordable", "warning")):
        job = record_job(max_attempts=1)
        bench.dispatch(prefetch=10)
        bench.claim(job)
        outcome: Any = {"kind": "raised", "error": "no", "reason": "no", "ended_by": ended_by}
        bench.record(job, 1, Outcome(**outcome))
        assert bench.job(job)["state"] == "failed"
        assert ask("jobs.unrecordable").state == state
