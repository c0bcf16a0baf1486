"""Operations against each other, against operators, retention and the loop: whoever is first wins, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_opsjobs import ActionRefused, JobFilter
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.operations.operate import make_turn
from tests.operations.conftest import FAILED, WHY, Operations, counts_of
from tests.operations.test_operate import Changing
from tests.support.engine import race

TIMES = range(5)
WAITING = JobFilter(queue="default")


def turns(operations: Operations, id: int = 1, number: int = 8) -> Callable[[], int]:
    """Turns of an operation on a connection of their own, as another process makes them; how many rows."""
    host = operations.bench.host

    def run() -> int:
        connection = connect_apart(host.engine)
        try:
            made = [make_turn(connection, host, id, read_clock(connection)) for _ in range(number)]
            return sum(turn.handled for turn in made if turn is not None)
        finally:
            connection.close()

    return run


@pytest.mark.parametrize("time", TIMES)
def test_two_starts_of_one_draft(operations: Operations, time: int) -> None:
    operations.fail(2)
    draft = operations.operator.draft("job.retry", FAILED, actor="anna")
    start = lambda: operations.operator.start_draft(draft.id or 0, **WHY)  # noqa: E731
    answers = race(start, start)
    assert sorted(type(answer).__name__ for answer in answers) == ["ActionRefused", "Receipt"]
    assert operations.audited() == ["operation.start", "operation.start"]


@pytest.mark.parametrize("time", TIMES)
def test_two_processes_share_an_operation(operations: Operations, time: int) -> None:
    ids = operations.enqueue(150)
    operations.operator.start("job.cancel", WAITING, **WHY)
    handled = race(turns(operations), turns(operations), turns(operations))
    operations.pass_all()
    operation = operations.operation()
    assert operation["state"] == "finished"
    assert counts_of(operation) == {"done": 150}
    assert sum(handled) <= 150
    assert operations.states(ids) == {"canceled"}


@pytest.mark.parametrize("time", TIMES)
def test_a_cancel_against_a_chunk(operations: Operations, time: int) -> None:
    ids = operations.enqueue(150)
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    _, canceled = race(
        turns(operations), lambda: operations.operator.cancel_operation(started.id or 0, **WHY)
    )
    operations.pass_all()
    operation = operations.operation()
    if isinstance(canceled, Receipt):
        assert operation["state"] == "canceled"
    else:
        assert isinstance(canceled, ActionRefused)
        assert operation["state"] == "finished"
    found = operations.bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'canceled'")
    assert found["n"] == operation["done"] <= len(ids)


@pytest.mark.parametrize("time", TIMES)
def test_retention_against_a_chunk(operations: Operations, time: int) -> None:
    operations.fail(40)
    operations.operator.start("job.run_again", FAILED, **WHY, authorize=False)
    connection = connect_apart(operations.bench.host.engine)
    old = {"state": "failed", "before": operations.now.replace(year=2999), "limit": 25}
    race(turns(operations), lambda: connection.execute(sql.load("retain_jobs"), old))
    connection.close()
    rows = operations.receipts()
    done = [row for row in rows if row["result"] in ("done", "proven")]
    new = operations.bench.row(
        "SELECT count(*) AS n FROM opsjobs.jobs WHERE run_again_from IS NOT NULL"
    )
    assert new["n"] == len(done)
    assert {row["code"] for row in rows if row["result"] == "skipped"} <= {"not_found"}


@pytest.mark.parametrize("time", TIMES)
def test_an_operators_own_retry_against_a_chunk(operations: Operations, time: int) -> None:
    ids = operations.fail(1)
    operations.operator.start("job.retry", FAILED, **WHY)
    _, own = race(turns(operations, number=1), lambda: operations.operator.retry(ids, **WHY))
    operations.pass_all()
    (row,) = operations.receipts()
    assert (row["result"] == "done") != isinstance(own, Receipt)
    assert operations.bench.job(ids[0])["max_attempts"] == 2


@pytest.mark.parametrize("time", TIMES)
def test_two_operations_in_crossed_orders_do_not_deadlock(
    operations: Operations, time: int
) -> None:
    ids = operations.enqueue(120)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.operator.start("job.discard", WAITING, **WHY)
    answers = race(
        turns(operations, 1),
        turns(operations, 2),
        lambda: operations.operator.reschedule(ids[::-1][:50], None, **WHY),
        lambda: operations.bench.dispatch(prefetch=30),
    )
    faults = [each for each in answers if isinstance(each, Exception)]
    assert [each for each in faults if not isinstance(each, ActionRefused)] == []
    for id in (1, 2):
        done = [row["job_id"] for row in operations.receipts(id) if row["result"] == "done"]
        state = {1: "canceled", 2: "failed"}[id]
        assert operations.states(done) <= {state}


@pytest.mark.parametrize("time", TIMES)
def test_eight_at_once_never_pass_the_bound(operations: Operations, time: int) -> None:
    policy: Any = Changing()
    policy.bound = 25
    operations.bench.host.access = policy
    operations.enqueue(10)
    drafts = [operations.operator.draft("job.cancel", WAITING, actor="anna") for _ in range(8)]
    answers = race(
        *(lambda id=draft.id: operations.operator.start_draft(id or 0, **WHY) for draft in drafts)
    )
    assert sum(isinstance(answer, Receipt) for answer in answers) == 2
    rows = operations.bench.row(
        "SELECT sum(targets) AS n FROM opsjobs.operations WHERE state = 'running'"
    )
    assert rows["n"] == 20
