"""Leases: every arrow out of `started` gives its place back exactly once, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.engine.worker import claim as claiming
from flask_opsjobs.jobs.lifecycle import ARROWS
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import retention
from flask_opsjobs.limits import bucket, stored_buckets
from tests.conftest import MakeBench
from tests.limits.conftest import Limited
from tests.support.engine import Bench, race

Commit = Callable[..., int]
RETURNED = Outcome(kind="returned")
WHY: dict[str, Any] = {"actor": "anna", "reason": "it is a test"}
LANE = "default|api|0"


def held(bench: Bench) -> list[int]:
    return [row["job_id"] for row in bench.rows("SELECT job_id FROM opsjobs.leases ORDER BY 1")]


def rescue(bench: Bench, _job_id: int) -> None:
    endings.rescue(bench.connection, [bench.worker_id], read_clock(bench.connection), "gone")


def outcome(kind: str, **more: Any) -> Callable[[Bench, int], object]:
    return lambda bench, job_id: bench.record(job_id, 1, Outcome(kind=kind, **more))


def stop(bench: Bench, job_id: int) -> None:
    """An operator's cancel of what runs: the worker kills it, and says so."""
    Operator(bench.host).cancel(job_id, **WHY)
    assert held(bench) == [job_id], "asking does not end it"
    bench.record(job_id, 1, Outcome(kind="died", error="stopped", cause_of_death="stopped"))


# Every way out of `started`, by its arrow.
OUT: dict[str, tuple[str, Callable[[Bench, int], object]]] = {
    "returned": ("finish", outcome("returned")),
    "raised": ("fail", outcome("raised", error="Boom")),
    "timed_out": ("fail", outcome("timed_out", error="too long")),
    "died": ("fail", outcome("died", error="SIGKILL")),
    "discarded": ("fail", outcome("discarded", reason="no")),
    "retry_in": ("fail", outcome("retry_in", delay_seconds=5.0)),
    "unrecordable": ("fail", outcome("raised", error="x", ended_by="unrecordable")),
    "deadline": ("fail", outcome("not_run", error="x", ended_by="deadline")),
    "invalid_args": ("hand_back", outcome("not_run", error="x", ended_by="invalid_args")),
    "unknown_task": ("hand_back", outcome("not_run", error="x", ended_by="unknown_task")),
    "snoozed": ("snooze", outcome("snoozed", delay_seconds=5.0)),
    "canceled": ("cancel", outcome("canceled", reason="no")),
    "stopped": ("cancel", stop),
    "rescued": ("rescue", rescue),
}


def test_every_arrow_out_of_started_is_in_the_table() -> None:
    # Adopted jobs have no limiter: only RQ moves them.
    of_rq = {"observe", "vanish"}
    out = {arrow.name for arrow in ARROWS if "started" in arrow.sources} - of_rq
    assert {arrow for arrow, _ in OUT.values()} == out


@pytest.mark.parametrize("way", OUT)
def test_a_way_out_gives_the_place_back(
    bench: Bench, limited: Limited, commit: Commit, way: str
) -> None:
    task = limited(concurrency=2)
    job_id, other = commit(task), commit(task)
    assert bench.dispatch(LANE, prefetch=10) == 2
    bench.claim(job_id)
    OUT[way][1](bench, job_id)
    assert bench.job(job_id)["state"] != "started"
    assert held(bench) == []
    bench.claim(other)
    assert bench.record(job_id, 1, RETURNED) == []
    assert held(bench) == [other], "once, and no other one's"


def test_a_late_end_does_not_free_the_next_attempt_s_place(
    bench: Bench, make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    job_id = commit(limited(concurrency=1))
    bench.dispatch(LANE)
    bench.claim(job_id)
    rescue(bench, job_id)
    other = make_bench("other")
    assert other.dispatch(LANE) == 1
    other.claim(job_id, 2)
    assert bench.record(job_id, 1, RETURNED) == []
    rows = bench.rows("SELECT job_id, dispatch_no FROM opsjobs.leases")
    assert rows == [{"job_id": job_id, "dispatch_no": 2}]


def test_an_end_and_a_rescue_give_one_place_back(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=2)
    one, two = make_bench(), make_bench()
    for account in range(15):
        job_id = commit(task, account=account)
        one.dispatch(f"default|api|{account}")
        one.claim(job_id)
        race(
            lambda job_id=job_id: one.record(job_id, 1, RETURNED),
            lambda job_id=job_id: rescue_from(two, one),
        )
        assert held(one) == []


def rescue_from(bench: Bench, gone: Bench) -> None:
    now = read_clock(bench.connection)
    endings.rescue(bench.connection, [gone.worker_id], now, "gone")


def test_no_clock_and_nothing_but_an_end_frees_a_place(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    job_id = commit(limited(concurrency=1), account=0)
    bench.dispatch(LANE)
    bench.claim(job_id)
    later = read_clock(bench.connection) + timedelta(days=400)
    retention.retain(bench.connection, bench.host.settings, later)
    endings.expire(bench.connection, later)
    recall(bench.connection, [(job_id, 1)])
    Operator(bench.host).pause("default", **WHY)
    assert held(bench) == [job_id]


def test_what_waits_holds_no_place(bench: Bench, limited: Limited, commit: Commit) -> None:
    task = limited(concurrency=3)
    ids = [commit(task) for _ in range(3)]
    assert bench.dispatch(LANE, prefetch=10) == 3
    assert held(bench) == []
    operator = Operator(bench.host)
    operator.cancel(ids[0], **WHY)
    operator.discard(ids[1], **WHY)
    bench.claim(ids[2])
    assert held(bench) == [ids[2]]


def test_a_retry_and_a_run_again_wait_in_the_same_lane(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    job_id = commit(limited(rate=1, per=3600, weight="size", burst=4), size=2)
    bench.dispatch(LANE)
    bench.claim(job_id)
    bench.record(job_id, 1, Outcome(kind="discarded", reason="no"))
    operator = Operator(bench.host)
    operator.run_again(job_id, **WHY)
    operator.retry(job_id, **WHY)
    columns = "lane, limiter, partition, weight, state"
    rows = bench.rows(f"SELECT {columns} FROM opsjobs.jobs ORDER BY id")
    assert rows[0] == rows[1]
    assert rows[0]["lane"] == LANE
    assert bench.dispatch(LANE, prefetch=10) == 1, "two tokens are left for one of them"


# --- what was claimed and not called

REFUSED = Outcome(kind="not_run", error="not here", ended_by="unknown_task")


def record_at(bench: Bench, job_id: int, outcome: Outcome, now: datetime) -> None:
    ending = EndedAttempt(job_id, 1, bench.worker_id, bench.name, outcome)
    assert len(endings.write_outcomes(bench.connection, [ending], now)) == 1


def tokens_at(bench: Bench, now: datetime) -> float:
    """What the bucket has then, as a claim would find it."""
    with Session(bench.host.engine) as session:
        found = stored_buckets.get_bucket(session.connection(), "api", "0")
    assert found.shape is not None
    return bucket.tokens_at(found.shape, found.level, now)


def test_the_time_of_a_bucket_is_in_utc_whatever_time_zone_the_hosts_session_has(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    """Its last refill is in the zone of the session: in Python an hour could be missing between the two."""
    commit(limited(rate=1, per=3600, burst=5), size=2)
    with Session(bench.host.engine) as session:
        session.execute(text("SET LOCAL TimeZone = 'Europe/Berlin'"))
        found = stored_buckets.get_bucket(session.connection(), "api", "0")
    assert found.now.tzinfo is UTC


def test_a_job_that_is_handed_back_gives_its_tokens_back(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=1, per=3600, burst=5, concurrency=9, weight="size")
    other, job_id = commit(task, size=2), commit(task, size=3)
    bench.dispatch(LANE, prefetch=10)
    bench.claim(other)
    claimed = bench.claim(job_id)
    assert isinstance(claimed, Claimed)
    now = claimed.claimed_at
    assert tokens_at(bench, now) == pytest.approx(0, abs=0.01)
    record_at(bench, job_id, REFUSED, now + timedelta(seconds=2))
    assert held(bench) == [other]
    assert tokens_at(bench, now + timedelta(seconds=2)) == pytest.approx(3, abs=0.01)
    bucket_row = bench.row("SELECT admitted FROM opsjobs.buckets")
    counted = bench.row("SELECT sum(admitted) AS admitted FROM opsjobs.limit_count_deltas")
    assert (bucket_row["admitted"], counted["admitted"]) == (1, 1)


def test_tokens_that_had_no_room_meanwhile_are_not_given_back(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    """The bucket was full again when another job took a token:
    with the one given back it would hold too many.
    """
    task = limited(rate=1, per=1, burst=5, concurrency=9)
    job_id, other = commit(task), commit(task)
    bench.dispatch(LANE, prefetch=10)
    claimed = bench.claim(job_id)
    assert isinstance(claimed, Claimed)
    later = claimed.claimed_at + timedelta(seconds=60)
    assert isinstance(
        claiming.claim(bench.connection, (other, 1), bench.worker_id, bench.name, now=later),
        Claimed,
    )
    record_at(bench, job_id, REFUSED, later)
    assert tokens_at(bench, later) == pytest.approx(4)


def test_flushes_that_cross_give_tokens_back_without_a_deadlock(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    """Each flush locks the buckets of many partitions; its jobs come in another order."""
    task = limited(rate=1, per=3600, burst=5)
    one, two = make_bench(), make_bench()
    accounts = range(12)
    jobs = [(account, commit(task, account=account)) for account in (*accounts, *accounts)]
    for account in accounts:
        assert one.dispatch(f"default|api|{account}", prefetch=100) == 2
    for _, job_id in jobs:
        assert isinstance(one.claim(job_id), Claimed)
    # Jobs are locked in id order: in one flush the partitions rise with it, in the other they fall.
    rising = jobs[: len(accounts)]
    falling = jobs[len(accounts) :]

    def flush(bench: Bench, mine: list[tuple[int, int]]) -> int:
        batch = [EndedAttempt(job_id, 1, one.worker_id, one.name, REFUSED) for _, job_id in mine]
        return len(endings.write_outcomes(bench.connection, batch, read_clock(bench.connection)))

    assert race(lambda: flush(one, rising), lambda: flush(two, falling[::-1])) == [12, 12]
    assert held(one) == []
    rows = one.rows(
        "SELECT DISTINCT round(tokens::numeric, 1)::float8 AS tokens FROM opsjobs.buckets"
    )
    assert rows == [{"tokens": 5.0}]
