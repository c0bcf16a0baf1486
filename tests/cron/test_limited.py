"""A slot of a limited task waits in the limiter's lane as any other call of it does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import Limit, OpsJobs
from flask_opsjobs.engine.worker.runtime import declare_limiters
from tests.cron.conftest import START, Scheduler


@pytest.mark.parametrize("when_full", ["hold", "reject"])
def test_a_slot_of_a_limited_worker_waits_in_its_lane(
    opsjobs: OpsJobs, scheduler: Scheduler, when_full: Any
) -> None:
    """Nobody could be told of a rejection, so a full limit holds a slot's job,
    whatever it says to callers.
    """

    def fetch(account: int) -> None:
        """Does nothing."""

    limit = Limit("api", concurrency=1, partition="account", when_full=when_full)
    opsjobs.cron("*/10 * * * *", overlap="allow", args={"account": 7})(
        opsjobs.task(limit=limit)(fetch)
    )
    declare_limiters(scheduler.bench.host, "here")
    scheduler.look(START)
    for minutes in (10, 20):
        scheduler.look(START + timedelta(minutes=minutes))
    assert [result for _, result, _ in scheduler.slots("fetch")] == ["ran", "ran"]
    first, second = scheduler.jobs()
    assert (first["limiter"], first["partition"], first["weight"]) == ("api", "7", 1)
    assert first["lane"] == second["lane"] != first["queue"]
    assert scheduler.bench.dispatch_all() == 1
    assert [job["state"] for job in scheduler.jobs()] == ["queued", "available"]
