"""The bundle of a task: jobs that failed, counts that nobody made, and a task whose jobs are gone."""

from __future__ import annotations

from collections.abc import Callable

from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import roll_up
from tests.support.engine import forget_tasks

from .conftest import Story, texts

RecordJob = Callable[..., int]
BOOM = Outcome(kind="raised", error="Boom", failure_key=bytes([1] * 16).hex())


def _fail(story: Story, record_job: RecordJob) -> int:
    job = record_job(max_attempts=1)
    story.bench.dispatch()
    story.bench.claim(job)
    story.bench.record(job, 1, BOOM)
    return job


def test_a_task_whose_job_failed_is_told_whole_and_after_retention_not(
    story: Story, record_job: RecordJob
) -> None:
    job = _fail(story, record_job)
    record_job()  # it waits
    for _ in range(4):
        story.later(60)
        story.run(roll_up.LOOP)
    found = story.ask("task/note")
    assert found.completeness == "complete", found.lacking
    assert texts(found) == [f"Job {job}: Failed: the last attempt failed"]
    assert found.timeline.events[0].payload == "Boom"
    assert "1 failed, and 1 failure of it is open" in found.diagnosis
    (failure,) = [each for each in found.related if each.how == "Failure"]
    assert failure.subject is not None
    related = story.ask(f"job/{job}").related
    assert [each.says for each in related if each.how == "Failure"] == ["open: 1 attempt of note"]
    story.operator.run("job.cancel", ["job/2"], actor="anna", reason="not needed any more")
    forget_tasks(story.bench.host)
    story.retain(days=story.bench.host.settings.keep_canceled_days + 15)
    assert story.ask("task/note").completeness == "complete"  # a failed job is kept longer
    story.bench.connection.execute("DELETE FROM opsjobs.jobs")
    assert story.ask("task/note").completeness == "history unavailable"
    assert story.ask("task/nothing").completeness == "unknown"


def test_ends_that_nobody_counted_are_not_known(story: Story, record_job: RecordJob) -> None:
    _fail(story, record_job)
    story.later(60, without=("roll_up",))
    found = story.ask("task/note")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == ["How many of its jobs ended is not counted."]


def test_a_paused_task_says_first_who_paused_it_and_why(
    story: Story, record_job: RecordJob
) -> None:
    record_job()
    story.operator.pause_task("note", actor="anna", reason="the letters are wrong")
    says = story.ask("task/note").diagnosis
    assert says.startswith("anna paused it at 2")
    assert ": “the letters are wrong” " in says
