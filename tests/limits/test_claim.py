"""The claim of a limited job: token and lease are taken with the attempt,
or the job goes back; never too many.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker import claim as claiming
from flask_opsjobs.engine.worker.claim import NotClaimed
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.limits.conftest import Limited
from tests.support.engine import Bench, forget_tasks, race
from tests.support.waiting import wait_until

RETURNED = Outcome(kind="returned")
Commit = Callable[..., int]


def lane(account: int = 0) -> str:
    return f"default|api|{account}"


def dispatch_all(bench: Bench) -> None:
    """As two dispatchers could that looked at the same room: what the claim must hold back."""
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'queued', dispatch_no = dispatch_no + 1,"
        " dispatched_at = clock_timestamp() WHERE state = 'available'"
    )


def leases(bench: Bench) -> list[tuple[int, int]]:
    rows = bench.rows("SELECT job_id, dispatch_no FROM opsjobs.leases ORDER BY job_id")
    return [(row["job_id"], row["dispatch_no"]) for row in rows]


def test_a_limited_job_waits_in_the_lane_of_its_partition(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    job = bench.job(commit(limited(rate=1, per=60, weight="size", burst=5), account=7, size=3))
    assert (job["lane"], job["limiter"], job["partition"], job["weight"]) == (
        "default|api|7",
        "api",
        "7",
        3,
    )
    assert job["state"] == "available"


def test_dispatch_takes_what_the_tokens_allow(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=2, per=60)
    for _ in range(5):
        commit(task)
    assert bench.dispatch(lane(), prefetch=100) == 2
    assert bench.dispatch(lane(), prefetch=100) == 0, "what is queued counts"


def test_a_claim_takes_a_token_and_a_lease(bench: Bench, limited: Limited, commit: Commit) -> None:
    job_id = commit(limited(rate=2, per=60))
    bench.dispatch(lane())
    claimed = bench.claim(job_id)
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.wait_seconds) == (1, 0.0)
    assert bench.job(job_id)["state"] == "started"
    assert bench.attempt(job_id)["outcome"] is None
    bucket = bench.row("SELECT * FROM opsjobs.buckets")
    assert (bucket["tokens"], bucket["admitted"], bucket["partition"]) == (1.0, 1, "0")
    assert leases(bench) == [(job_id, 1)]
    counted = bench.row("SELECT * FROM opsjobs.limit_count_deltas")
    assert (counted["limiter"], counted["admitted"], counted["recalled"]) == ("api", 1, 0)


def test_without_a_token_the_job_goes_back(bench: Bench, limited: Limited, commit: Commit) -> None:
    task = limited(rate=1, per=60)
    one, two = commit(task), commit(task)
    dispatch_all(bench)
    assert isinstance(bench.claim(one), Claimed)
    assert bench.claim(two) == NotClaimed("limited")
    job = bench.job(two)
    assert (job["state"], job["attempt"], job["dispatched_at"]) == ("available", 0, None)
    assert bench.rows("SELECT 1 FROM opsjobs.attempts WHERE job_id = %s", two) == []
    assert bench.dispatch(lane()) == 0
    assert bench.row("SELECT sum(recalled) AS n FROM opsjobs.limit_count_deltas")["n"] == 1


def test_a_full_concurrency_holds_until_an_end(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=1)
    one, two = commit(task), commit(task)
    assert bench.dispatch(lane(), prefetch=100) == 1
    bench.claim(one)
    assert bench.dispatch(lane(), prefetch=100) == 0
    bench.record(one, 1, RETURNED)
    assert leases(bench) == []
    assert bench.dispatch(lane(), prefetch=100) == 1
    assert isinstance(bench.claim(two), Claimed)


def test_the_claim_keeps_the_order_of_weights(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=4, weight="size")
    heavy, light = commit(task, size=3), commit(task, size=2)
    last = commit(task, size=1)
    assert bench.dispatch(lane(), prefetch=100) == 1, "the second does not fit, nobody overtakes it"
    bench.claim(heavy)
    assert bench.dispatch(lane(), prefetch=100) == 0
    bench.record(heavy, 1, RETURNED)
    assert bench.dispatch(lane(), prefetch=100) == 2
    assert {bench.job(job_id)["state"] for job_id in (light, last)} == {"queued"}


def test_a_job_too_heavy_for_a_new_declaration_lets_others_pass(
    bench: Bench, limited: Limited, commit: Commit, host: Host, opsjobs: object
) -> None:
    task = limited(concurrency=9, weight="size")
    heavy, light = commit(task, size=9), commit(task, size=1)
    forget_tasks(host)
    limited(concurrency=2, weight="size")
    assert bench.dispatch(lane(), prefetch=100) == 1
    assert (bench.job(heavy)["state"], bench.job(light)["state"]) == ("available", "queued")


def test_behind_a_job_too_heavy_the_loop_dispatches_into_every_free_place(
    bench: Bench, limited: Limited, commit: Commit, host: Host, opsjobs: OpsJobs
) -> None:
    """Also while others run for a week:
    what can never start asks for no empty bucket, and goes before nobody.
    """
    task = limited(concurrency=9, weight="size")
    runs, heavy = commit(task, size=1), commit(task, size=9)
    assert bench.dispatch(lane()) == 1
    bench.claim(runs)
    forget_tasks(host)
    task = limited(concurrency=2, weight="size")
    lights = [commit(task, size=1) for _ in range(2)]
    codes = {reason.code for reason in opsjobs.explain(lights[0]).reasons}
    assert "limit_behind" not in codes
    assert bench.dispatch_all() == 1
    states = [bench.job(job_id)["state"] for job_id in (heavy, *lights)]
    assert states == ["available", "queued", "available"]


@pytest.mark.parametrize("limit", [{"rate": 1, "per": 3600}, {"concurrency": 1}])
def test_two_claims_for_one_place(
    make_bench: MakeBench, limited: Limited, commit: Commit, limit: dict[str, int]
) -> None:
    task = limited(**limit)
    one, two = make_bench(), make_bench()
    for account in range(15):
        ids = [commit(task, account=account) for _ in range(2)]
        dispatch_all(one)
        answers = race(lambda ids=ids: one.claim(ids[0]), lambda ids=ids: two.claim(ids[1]))
        assert sorted(type(answer).__name__ for answer in answers) == ["Claimed", "NotClaimed"]
        assert NotClaimed("limited") in answers
        states = sorted(one.job(job_id)["state"] for job_id in ids)
        assert states == ["available", "started"]


def test_eight_claims_never_start_more_than_the_burst(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=3, per=3600)
    benches = [make_bench() for _ in range(8)]
    ids = [commit(task) for _ in range(40)]
    dispatch_all(benches[0])

    def claim_five(number: int) -> int:
        mine = ids[number * 5 : number * 5 + 5]
        return sum(isinstance(benches[number].claim(each), Claimed) for each in mine)

    started = race(*(lambda number=number: claim_five(number) for number in range(8)))
    assert sum(started) == 3
    assert len(leases(benches[0])) == 3
    assert benches[0].row("SELECT admitted FROM opsjobs.buckets")["admitted"] == 3


def test_a_claim_races_the_end_that_frees_its_place(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=1)
    one, two = make_bench(), make_bench()
    for account in range(15):
        first, second = (commit(task, account=account) for _ in range(2))
        dispatch_all(one)
        assert isinstance(one.claim(first), Claimed)
        race(
            lambda first=first: one.record(first, 1, RETURNED),
            lambda second=second: two.claim(second),
        )
        running = [job_id for job_id in (first, second) if one.job(job_id)["state"] == "started"]
        held = [job_id for job_id, _ in leases(one) if job_id in (first, second)]
        assert held == running


@pytest.mark.slow
@pytest.mark.parametrize("last", [20, pytest.param(100, marks=pytest.mark.variants)])
def test_a_rate_is_right_in_its_second_and_its_last_window(
    bench: Bench, limited: Limited, commit: Commit, last: int
) -> None:
    """On the time that is passed in: at each moment eight ask,
    and never more start than burst + rate × time.
    """
    task = limited(rate=2, per=60, burst=2)
    began = read_clock(bench.connection)
    started = 0
    # Two turns for each token.
    for second in range(0, last * 60, 15):
        now = began + timedelta(seconds=second)
        commit(task)
        dispatch_all(bench)
        waiting = bench.rows("SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'queued'")[:3]
        for row in waiting:
            answer = claim_at(bench, row["id"], row["dispatch_no"], now)
            if isinstance(answer, Claimed):
                started += 1
                bench.record(row["id"], row["dispatch_no"], RETURNED)
        assert started <= 2 + second * 2 / 60 + 1e-6
        if second in (105, last * 60 - 15):
            assert started >= (second * 2 / 60) * 0.95, f"after {second} s only {started}"


def claim_at(bench: Bench, job_id: int, dispatch_no: int, now: object) -> Claimed | NotClaimed:
    return claiming.claim(
        bench.connection,
        (job_id, dispatch_no),
        bench.worker_id,
        bench.name,
        now=now,  # type: ignore[arg-type]
    )


def test_a_tight_bucket_promises_the_next_token_and_no_further(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=10, per=1, burst=1)
    ids = [commit(task) for _ in range(8)]
    dispatch_all(bench)
    now = read_clock(bench.connection)
    answers = [claim_at(bench, job_id, 1, now) for job_id in ids]
    waits = [answer.wait_seconds for answer in answers if isinstance(answer, Claimed)]
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert answers[4:] == [NotClaimed("limited")] * 4
    starts = [bench.job(job_id)["started_at"] for job_id in ids[:4]]
    assert starts == [now + timedelta(seconds=wait) for wait in waits]


def test_a_claim_asked_again_takes_nothing_twice(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    """The connection broke after its commit, before its answer."""
    job_id = commit(limited(rate=5, per=3600, concurrency=5))
    bench.dispatch(lane())
    assert isinstance(bench.claim(job_id), Claimed)
    again = claiming.claim(
        bench.connection, (job_id, 1), bench.worker_id, bench.name, is_retry=True
    )
    assert isinstance(again, Claimed)
    assert again.attempt == 1
    assert leases(bench) == [(job_id, 1)]
    assert bench.row("SELECT tokens FROM opsjobs.buckets")["tokens"] == 4.0


def test_an_overdue_limited_job_ends_and_takes_nothing(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    job_id = commit(limited(concurrency=1, task={"deadline": timedelta(hours=1)}))
    bench.dispatch(lane())
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET deadline_at = clock_timestamp() - interval '1 s'"
    )
    assert bench.claim(job_id) == NotClaimed("deadline")
    assert (bench.job(job_id)["ended_by"], leases(bench)) == ("deadline", [])


def test_a_claim_killed_before_its_commit_took_nothing(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=5, per=3600, concurrency=5)
    one, two = make_bench(), make_bench()
    job_id = commit(task)
    one.dispatch(lane())
    blocker = two.connection
    with blocker.transaction():
        # Whoever holds the bucket keeps the claim in the middle of its transaction.
        blocker.execute("INSERT INTO opsjobs.buckets VALUES ('api', '0', NULL, NULL, now())")
        answers = race(lambda: one.claim(job_id), lambda: kill_who_waits(two))
    assert answers[1] is True
    assert isinstance(answers[0], Exception)
    assert two.job(job_id)["state"] == "queued"
    assert leases(two) == []
    assert isinstance(two.claim(job_id), Claimed), "and it can be claimed again"


def kill_who_waits(bench: Bench) -> bool:
    """Kill who waits for this session: through a pooler it may be any process of Postgres."""
    kill = """SELECT pg_terminate_backend(pid) FROM pg_locks
        WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"""
    return bool(wait_until(lambda: bench.connection.execute(kill).fetchone())[0])


def test_one_partition_with_many_waiters_delays_no_other(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy
) -> None:
    """Pitfall: all waiters of one partition, rewritten again and again, and the other's job never served."""
    task = limited(rate=1, per=3600)
    task.enqueue_many({"account": 1} for _ in range(20_000))
    db.session.commit()
    other = commit(task, account=2)
    assert bench.dispatch_all() == 2, "one of each partition"
    assert isinstance(bench.claim(other), Claimed), "it starts at once"
    touched = (
        "SELECT count(*) AS n FROM opsjobs.jobs WHERE xmin <>"
        " (SELECT xmin FROM opsjobs.jobs WHERE state = 'available' LIMIT 1)"
    )
    assert bench.row(touched)["n"] == 2
    for _ in range(20):
        assert bench.dispatch_all() == 0
    assert bench.row(touched)["n"] == 2, "nothing is rewritten to say that it waits"
