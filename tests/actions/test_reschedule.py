"""Another due time for a waiting job: in each state, in Redis already, against claims and dispatches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.jobs.lifecycle import sources_of
from tests.actions.conftest import Reach
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
LATER = datetime(2999, 1, 1, 9, tzinfo=UTC)
TIMES = range(8)


def _changes(operator: Operator, job_id: int, due_at: Any) -> dict[str, str | None]:
    params = {"due_at": due_at}
    (item,) = operator.plan("job.reschedule", [f"job/{job_id}"], actor="anna", params=params).items
    return {change.what: change.after for change in item.changes}


@pytest.mark.parametrize("was", sources_of("reschedule"))
def test_a_later_time_lets_it_wait(
    bench: Bench, operator: Operator, reach: Reach, was: str
) -> None:
    job_id = reach(was)
    before = bench.job(job_id)
    operator.reschedule(job_id, LATER, **WHY)
    job = bench.job(job_id)
    assert (job["state"], job["due_at"], job["dispatched_at"]) == ("scheduled", LATER, None)
    kept = ("dispatch_no", "attempt", "max_attempts", "deadline_at", "priority")
    assert [job[column] for column in kept] == [before[column] for column in kept]


@pytest.mark.parametrize("was", ["scheduled", "retryable"])
@pytest.mark.parametrize("asked", [None, "now", datetime(2020, 1, 1, tzinfo=UTC)])
def test_now_makes_it_available(
    bench: Bench, operator: Operator, reach: Reach, was: str, asked: Any
) -> None:
    """A time that has passed is now: the job does not overtake those that are due already."""
    job_id = reach(was)
    assert _changes(operator, job_id, asked) == {"state": "available", "due": "now"}
    before = read_clock(bench.connection)
    operator.reschedule(job_id, asked, **WHY)
    job = bench.job(job_id)
    assert job["state"] == "available"
    assert before <= job["due_at"] <= read_clock(bench.connection)
    assert bench.dispatch(prefetch=10) == 1


@pytest.mark.parametrize("was", ["available", "queued"])
def test_what_is_due_is_not_made_due_again(operator: Operator, reach: Reach, was: str) -> None:
    job_id = reach(was)
    with pytest.raises(ActionRefused, match=f"job {job_id} is due then already: it is {was}"):
        operator.reschedule(job_id, None, **WHY)


def test_the_same_time_changes_nothing(operator: Operator, reach: Reach) -> None:
    job_id = reach("scheduled")
    operator.reschedule(job_id, LATER, **WHY)
    plan = operator.plan(
        "job.reschedule", [f"job/{job_id}"], actor="anna", params={"due_at": LATER}
    )
    assert [skip.code for skip in plan.skipped] == ["already"]


def test_a_queued_job_leaves_redis_and_is_dispatched_again_when_it_is_due(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Any
) -> None:
    moved, kept = reach("queued"), reach("queued")
    operator.reschedule(moved, LATER, **WHY)
    left = {key.decode().rpartition("opsjobs-")[2] for key in redis_client.keys("*opsjobs-*")}
    assert left == {f"{kept}-1"}
    # And when it had stayed there, its claim would find no row.
    assert "not_queued" in str(bench.claim(moved, 1))
    operator.reschedule(moved, None, **WHY)
    assert bench.dispatch(prefetch=10) == 1
    assert "dispatched_again" in str(bench.claim(moved, 1))
    bench.claim(moved, 2)
    assert bench.job(moved)["state"] == "started"


def test_a_time_after_the_deadline_is_refused(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("scheduled", deadline=timedelta(hours=5))
    deadline = bench.job(job_id)["deadline_at"]
    with pytest.raises(ActionRefused, match="it must start before its deadline, 2") as refused:
        operator.reschedule(job_id, deadline, **WHY)
    assert refused.value.code == "illegal"
    operator.reschedule(job_id, deadline - timedelta(seconds=1), **WHY)
    assert endings.expire(bench.connection, deadline - timedelta(milliseconds=1)) == []


@pytest.mark.parametrize(
    "text", ["2999-01-01T09:00", "2999-01-01 09:00:00Z", " 2999-01-01T11:00+02:00 "]
)
def test_a_text_is_in_utc_unless_it_has_an_offset(
    bench: Bench, operator: Operator, reach: Reach, text: str
) -> None:
    job_id = reach("available")
    operator.run("job.reschedule", [f"job/{job_id}"], **WHY, params={"due_at": text})
    assert bench.job(job_id)["due_at"] == LATER
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert event["before"][f"job/{job_id}"]["state"] == "available"
    assert event["after"][f"job/{job_id}"]["due_at"] == LATER.isoformat()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "2026-13-01T00:00",
        "9999-01-01T00:00",
        "0001-01-01T00:00+14:00",
        7,
        True,
        LATER.replace(tzinfo=None),
    ],
)
def test_a_time_that_cannot_be_read_is_refused(
    operator: Operator, reach: Reach, value: Any
) -> None:
    job_id = reach("scheduled")
    with pytest.raises(ActionRefused, match="due_at is now, or a time up to") as refused:
        operator.reschedule(job_id, value, **WHY)
    assert refused.value.code == "unreadable"


def test_a_preview_is_refused_once_the_job_was_dispatched(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("available")
    preview = operator.preview(
        "job.reschedule", [f"job/{job_id}"], actor="anna", via="page", params={"due_at": LATER}
    )
    bench.dispatch(prefetch=10)
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    drifted = {change.what: change.after for change in receipt.drifted}
    assert drifted[f"job/{job_id} state"] == "queued"
    assert bench.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("time", TIMES)
def test_against_the_claim(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    job_id = reach("queued")
    worker = make_bench()
    receipt, claimed = race(
        lambda: operator.run("job.reschedule", [f"job/{job_id}"], **WHY, params={"due_at": LATER}),
        lambda: worker.claim(job_id),
    )
    job = bench.job(job_id)
    is_claimed = not hasattr(claimed, "reason")
    assert (job["state"], receipt.is_done) == (
        ("started", False) if is_claimed else ("scheduled", True)
    )


@pytest.mark.parametrize("time", TIMES)
def test_against_the_dispatch(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    """Whoever is first, the job waits: a delivery that was pushed after all finds no queued row."""
    job_id = reach("available")
    dispatcher = make_bench()
    reschedule: Callable[[], Any] = lambda: operator.reschedule(job_id, LATER, **WHY)  # noqa: E731
    race(reschedule, lambda: dispatcher.dispatch(prefetch=9))
    job = bench.job(job_id)
    assert (job["state"], job["due_at"]) == ("scheduled", LATER)
    assert "reason" in str(bench.claim(job_id, 1))
