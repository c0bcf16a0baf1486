"""A limit that rejects: the call raises before anything is written,
and its evidence outlives the host's rollback.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import LimitReached, Unique
from flask_opsjobs.host import Host
from tests.limits.conftest import Limited
from tests.support.engine import Bench, forget_tasks

Commit = Callable[..., int]


def rejections(bench: Bench) -> list[tuple[str, str, str]]:
    rows = bench.rows("SELECT limiter, partition, code FROM opsjobs.limit_rejections ORDER BY id")
    return [tuple(row.values()) for row in rows]


def count(bench: Bench) -> int:
    return int(bench.row("SELECT count(*) AS n FROM opsjobs.jobs")["n"])


def test_the_call_that_finds_no_token_raises(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy
) -> None:
    task = limited(rate=2, per=60, when_full="reject")
    for _ in range(2):
        commit(task, account=7)
    with pytest.raises(LimitReached, match="limiter api has no room for '7' now") as caught:
        task.enqueue(account=7)
    assert (caught.value.limiter, caught.value.partition, caught.value.code) == (
        "api",
        "7",
        "limit_tokens",
    )
    task.enqueue(account=8)
    db.session.commit()
    assert count(bench) == 3
    assert rejections(bench) == [("api", "7", "limit_tokens")]
    counted = bench.row("SELECT sum(rejected) AS n FROM opsjobs.limit_count_deltas")
    assert counted["n"] == 1


@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_the_evidence_is_written_when_the_host_s_transaction_has_ended(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy, end: str
) -> None:
    task = limited(concurrency=1, when_full="reject")
    commit(task)
    with pytest.raises(LimitReached), db.session.begin_nested():
        task.enqueue()
    assert rejections(bench) == [], "not while the host's transaction is open"
    getattr(db.session, end)()
    assert rejections(bench) == [("api", "0", "limit_concurrency")]
    db.session.commit()
    assert len(rejections(bench)) == 1
    read = bench.row("SELECT read FROM opsjobs.limit_rejections")["read"]
    assert (read["ahead"], read["concurrency"]) == (1, 1)


def test_the_transaction_of_the_host_goes_on(
    bench: Bench, limited: Limited, db: SQLAlchemy
) -> None:
    task = limited(concurrency=1, when_full="reject")
    task.enqueue()
    with pytest.raises(LimitReached):
        task.enqueue()
    db.session.commit()
    assert count(bench) == 1


def test_a_duplicate_is_a_conflict_and_not_a_block(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy
) -> None:
    unique = {"unique": Unique(by=["size"], until="ended")}
    task = limited(concurrency=1, when_full="reject", task=unique)
    first = commit(task, size=1)
    again = task.enqueue(size=1)
    assert (again.id, again.conflict) == (first, True)
    with pytest.raises(LimitReached):
        task.enqueue(size=2)
    assert task.enqueue_many([{"size": 1}]).conflicts == 1
    db.session.commit()
    assert rejections(bench) == [("api", "0", "limit_concurrency")]


def test_what_can_never_start_rejects_nobody(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    commit(limited(concurrency=9, weight="size", when_full="reject"), size=9)
    forget_tasks(host)
    task = limited(concurrency=1, weight="size", when_full="reject")
    commit(task, size=1)
    with pytest.raises(LimitReached):
        task.enqueue(size=1)
    assert count(bench) == 2


def test_many_are_rejected_together(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy
) -> None:
    task = limited(rate=3, per=3600, when_full="reject")
    with pytest.raises(LimitReached):
        task.enqueue_many([{}] * 4)
    assert task.enqueue_many([{}] * 3).count == 3
    db.session.commit()
    assert count(bench) == 3
    assert len(rejections(bench)) == 1


def test_of_many_only_new_calls_take_room(
    bench: Bench, limited: Limited, commit: Commit, db: SQLAlchemy
) -> None:
    """Neither a call whose unique lock is taken, nor one that equals a row before it."""
    unique = {"unique": Unique(by=["size"], until="ended")}
    task = limited(rate=3, per=3600, when_full="reject", task=unique)
    commit(task, size=1)
    sizes = [1, 1, 1, 2, 2, 3, 1]
    made = task.enqueue_many({"size": size} for size in sizes)
    assert (made.count, made.conflicts) == (2, 5)
    with pytest.raises(LimitReached):
        task.enqueue_many([{"size": 4}])
    db.session.commit()
    assert count(bench) == 3


def test_a_call_for_later_is_not_rejected(limited: Limited, commit: Commit) -> None:
    task = limited(concurrency=1, when_full="reject")
    commit(task)
    assert task.options(delay=60).enqueue().state == "scheduled"


def test_a_limit_that_holds_rejects_nobody(bench: Bench, limited: Limited, commit: Commit) -> None:
    task = limited(concurrency=1)
    for _ in range(5):
        commit(task)
    assert (count(bench), rejections(bench)) == (5, [])
