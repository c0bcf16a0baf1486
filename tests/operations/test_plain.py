"""Operations on plain RQ jobs: RQ is asked once for each, after the commit."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue

from flask_opsjobs import JobFilter
from flask_opsjobs.testing.valkey import Valkey
from tests.operations.conftest import WHY, Operations, counts_of
from tests.support.plain import adopt_row, take_plain

PLAIN = JobFilter(origin="rq")


def passed(operations: Operations) -> dict[str, Any]:
    """The operation after a few more passes."""
    operations.pass_all()
    return operations.operation()


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("default", connection=redis_client)


def test_what_rq_does_is_done_and_what_it_refuses_is_skipped(
    operations: Operations, queue: Queue
) -> None:
    jobs = [queue.enqueue(take_plain) for _ in range(5)]
    for job in jobs:
        adopt_row(operations.bench, job, "queued")
    jobs[1].cancel()
    operations.operator.start("job.cancel", PLAIN, **WHY)
    operation = operations.run()
    assert (operation["state"], counts_of(operation)) == ("finished", {"done": 4, "skipped": 1})
    refused = operations.receipts()[1]
    assert refused["code"] == "rq_refused"
    assert refused["says"].endswith("RQ says that it is canceled already")
    assert {job.get_status(refresh=True) for job in jobs} == {"canceled"}


def test_a_redis_that_this_app_does_not_know_is_a_refusal(
    operations: Operations, queue: Queue
) -> None:
    job = queue.enqueue(take_plain)
    adopt_row(operations.bench, job, "queued")
    operations.operator.start("job.cancel", PLAIN, **WHY)
    operations.bench.rows("UPDATE opsjobs.jobs SET rq_place = 'gone' RETURNING 1")
    operations.run()
    (row,) = operations.receipts()
    assert (row["result"], row["code"]) == ("skipped", "rq_refused")
    assert "knows no Redis gone" in row["says"]


def test_managed_and_plain_ones_in_one_operation(operations: Operations, queue: Queue) -> None:
    managed = operations.enqueue(2)
    adopt_row(operations.bench, queue.enqueue(take_plain), "queued")
    operations.operator.start("job.cancel", JobFilter(queue="default"), **WHY)
    assert counts_of(operations.run()) == {"done": 3}
    assert operations.states(managed) == {"canceled"}


class TestRedisAway:
    """With a Redis that can be stopped."""

    @pytest.fixture
    def redis_url(self, own_valkey: Valkey) -> str:
        return own_valkey.url

    def test_while_it_is_away_the_operation_is_paused_and_nothing_is_asked(
        self, operations: Operations, queue: Queue, own_valkey: Valkey
    ) -> None:
        """The turn of a job stays: the loop looks for Redis before it takes the operation."""
        job = queue.enqueue(take_plain)
        adopt_row(operations.bench, job, "queued")
        operations.operator.start("job.cancel", PLAIN, **WHY)
        own_valkey.freeze()
        try:
            operation = operations.run()
        finally:
            own_valkey.thaw()
        assert (operation["state"], operation["code"]) == ("paused", "redis_away")
        assert counts_of(operation) == {}
        assert counts_of(passed(operations)) == {"done": 1}
        assert job.get_status(refresh=True) == "canceled"
