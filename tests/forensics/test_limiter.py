"""The bundle of a limiter: its declaration, a rejection, a cooldown, and counts that nobody summed up."""

from __future__ import annotations

from typing import Any

import pytest

from flask_opsjobs import Limit, LimitReached, OpsJobs
from flask_opsjobs.core.display import NO_PAYLOAD, Display
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.forensics.shown import show_bundle
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import roll_up
from tests.support.policies import ShowAll

from .conftest import WHY, Story, actions, texts


@pytest.fixture
def call(opsjobs: OpsJobs, story: Story) -> Task:
    def call(customer: str) -> None:
        """Does nothing."""

    limit = Limit("api", concurrency=1, partition="customer", when_full="reject")
    task = opsjobs.task(limit=limit)(call)
    declare_limiters(story.bench.host, "worker-1")
    return task


def test_a_limiter_that_rejected_and_cools_down_is_told_whole(
    call: Task, story: Story, db: Any
) -> None:
    bench = story.bench
    log = ["Declared: 1 at the same time; for each customer"]
    job = call.enqueue(customer="canary").id
    db.session.commit()
    bench.dispatch("default|api|canary")
    assert bench.claim(job)
    with pytest.raises(LimitReached):
        call.enqueue(customer="canary")
    db.session.rollback()
    log.append("Rejected a call of call: concurrency")
    story.operator.run("limiter.cooldown", ["limiter/api"], params={"minutes": 5}, **WHY)
    log += ["ops-demo lets it cool down", "ops-demo: cooldown"]
    story.later(10)
    story.run(roll_up.LOOP)
    found = story.ask("limiter/api")
    assert sorted(texts(found)) == sorted(log)
    assert (found.completeness, found.state) == ("complete", "cooling down")
    assert "limiter.clear" in actions(found)
    (holder,) = found.evidence[1].rows
    assert holder.subject == f"job/{job}"
    (rejected,) = [event for event in found.timeline.events if event.is_ == "refused"]
    assert rejected.payload == "canary"
    shown = show_bundle(found, Display(ShowAll(), may_see=False))
    assert "canary" not in str(shown)
    assert NO_PAYLOAD in str(shown)


def test_counts_that_nobody_summed_up_are_not_known(call: Task, story: Story) -> None:
    story.later(60, without=("roll_up",))
    found = story.ask("limiter/api")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == ["How many jobs it admitted is not counted."]
    assert story.ask("limiter/other").completeness == "unknown"
