"""The bundle of a queue: whole, with a stopped loop, after its jobs are gone, and of a queue nobody knows."""

from __future__ import annotations

from collections.abc import Callable

from flask_opsjobs.lifeline import integrity
from tests.support.engine import Bench

from .conftest import WHY, Story, actions, texts


def test_a_queue_that_was_paused_is_told_whole(
    story: Story, record_job: Callable[..., int]
) -> None:
    record_job()
    receipt = story.operator.pause("default", **WHY)
    story.later(60)
    found = story.ask("queue/default")
    assert (found.completeness, found.lacking) == ("complete", [])
    assert found.state == "paused"
    assert "ops-demo made it paused" in found.diagnosis
    assert WHY["reason"] in found.diagnosis
    # The worker registered before the first job, with which the span begins.
    assert texts(found) == ["ops-demo: pause"]
    (event,) = found.timeline.events
    assert event.audit == receipt.audit_sequence
    assert actions(found) == ["queue.resume", "queue.set_prefetch"]
    assert {path.owner for path in found.paths} == {"OpsJobs-native"}


def test_a_loop_that_did_not_run_is_a_blind_window(
    story: Story, record_job: Callable[..., int]
) -> None:
    record_job()
    story.later(60, without=("roll_up",))
    story.later(10)
    found = story.ask("queue/default")
    assert found.completeness == "partial evidence"
    (lack,) = found.lacking
    assert lack.says == "How many of its jobs were due is not known."
    assert lack.since is not None
    assert lack.until is not None
    assert 50 < (lack.until - lack.since).total_seconds() <= 64
    (blind,) = [event for event in found.timeline.events if event.is_ == "blind"]
    assert (blind.at, blind.until) == (lack.since, lack.until)
    assert blind.is_inferred


def test_a_queue_whose_jobs_are_gone_is_history_unavailable(
    story: Story, bench: Bench, record_job: Callable[..., int]
) -> None:
    job = record_job(queue="old")
    story.operator.cancel(job, **WHY)
    integrity.count_rows(bench.connection, story.now)
    story.operator.run("job.delete", [f"job/{job}"], **WHY)
    found = story.ask("queue/old")
    assert (found.completeness, found.state) == ("history unavailable", None)
    assert found.timeline.events == []


def test_nothing_is_known_of_a_queue_that_never_was(story: Story) -> None:
    found = story.ask("queue/nobody")
    assert (found.completeness, found.paths) == ("unknown", [])
    assert "Nothing is known" in found.diagnosis


def test_a_reader_without_permission_is_told_what_is_left_out(story: Story) -> None:
    story.operator.pause("default", **WHY)
    found = story.ask("queue/default", lambda permission: permission == "queues.view")
    assert texts(found) == []
    assert [row.what for row in found.timeline.left_out] == [
        "decisions of the audit, which need audit.view",
        "operations, which need operations.view",
    ]
    assert {path.refusal for path in found.paths} == {
        "it needs queue.resume",
        "it needs queue.set_prefetch",
    }
