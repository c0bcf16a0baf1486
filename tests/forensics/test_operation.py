"""The bundles of an operation and of who started it, compared with the receipts and the audit."""

from __future__ import annotations

from typing import Any

import pytest

from flask_opsjobs import ActionRefused
from flask_opsjobs.jobs.record.task import Task
from tests.operations.conftest import FAILED, RETURNED, Operations, failure
from tests.support.engine import Bench

from .conftest import WHY, Story, actions, texts


@pytest.fixture
def operations(bench: Bench, note: Task, db: Any) -> Operations:
    """Jobs that failed, and passes of the loop `operate`."""
    return Operations(bench, note, db)


# A few jobs need two stages; a deletion of all passes through each.
_STAGES = ["system: stage"] * 2


def _start(operations: Operations, action: str = "job.retry") -> int:
    started = operations.operator.start(action, FAILED, **WHY)
    assert started.id is not None
    return started.id


def test_an_operation_is_told_row_by_row(story: Story, operations: Operations) -> None:
    first, second, third = operations.fail(3)
    id = _start(operations)
    # One of them is changed by somebody else before its turn comes.
    story.operator.delete(third, **WHY)
    operations.run(RETURNED)
    log = {f"Job {row['job_id']}: {row['result']}" for row in operations.receipts(id)}
    assert log == {
        f"Job {first}: proven",
        f"Job {second}: proven",
        f"Job {third}: skipped",
    }
    found = story.ask(f"operation/{id}")
    assert (found.completeness, found.lacking, found.state) == ("complete", [], "finished")
    assert texts(found) == [
        "A draft was made: job.retry of 3 jobs",
        "ops-demo: start",
        f"Job {first}: retry, done",
        f"Job {first}: its next attempt ended well",
        "system: stage",
        f"Job {second}: retry, done",
        f"Job {third}: skipped (not_found)",
        f"Job {second}: its next attempt ended well",
        "system: stage",
        "system: finish",
    ]
    assert found.diagnosis == (
        "It is finished. job.retry of 3 jobs by ops-demo: 1 skipped, 2 proven."
    )
    assert ("Started by", "actor/ops-demo") in {(one.how, one.subject) for one in found.related}


def test_one_that_stopped_says_why_and_what_was_spared(
    story: Story, operations: Operations
) -> None:
    operations.fail(15)
    id = _start(operations)
    operations.run(failure())
    found = story.ask(f"operation/{id}")
    assert found.state == "stopped"
    assert "failed with the same error" in found.diagnosis
    assert "14 left" in found.diagnosis
    assert actions(found)[0] == "operation.resume"
    (path,) = [path for path in found.paths if path.kind == "follow_up"]
    assert path.says.startswith("14 jobs were spared.")


def test_while_nobody_operates_no_stage_is_proven(story: Story, operations: Operations) -> None:
    operations.fail(3)
    id = _start(operations)
    story.later(60, without=("operate",))
    for subject in (f"operation/{id}", "actor/ops-demo"):
        found = story.ask(subject)
        assert found.completeness == "partial evidence"
        (blind,) = [event for event in found.timeline.events if event.is_ == "blind"]
        assert (blind.is_inferred, blind.until) == (True, None)
    story.later(10)
    assert story.ask(f"operation/{id}").completeness == "complete"


def test_after_retention_and_without_any_row(story: Story, operations: Operations) -> None:
    operations.fail(2)
    id = _start(operations, "job.delete")
    operations.run()
    bench = operations.bench
    story.retain_until(lambda: len(operations.receipts(id)) == 1)
    found = story.ask(f"operation/{id}")
    assert found.completeness == "history unavailable"
    assert [lack.says for lack in found.lacking] == [
        "receipts of its first jobs: they were removed"
    ]
    story.retain_until(lambda: not bench.rows("SELECT 1 FROM opsjobs.operations"))
    found = story.ask(f"operation/{id}")
    assert found.completeness == "history unavailable"
    assert texts(found) == ["ops-demo: start", *_STAGES, "system: finish"]
    assert story.ask("operation/999").completeness == "unknown"
    # Who started it is told whole but for what it did.
    found = story.ask("actor/ops-demo")
    assert found.completeness == "history unavailable"
    assert [lack.says for lack in found.lacking] == [f"what operation {id} did: it was removed"]


def test_an_actor_is_told_by_the_audit(story: Story, operations: Operations) -> None:
    (job,) = operations.fail(1)
    story.operator.pause("default", **WHY)
    with pytest.raises(ActionRefused):
        story.operator.retry(99, **WHY)
    story.operator.retry(job, **{**WHY, "actor": "bob"})
    found = story.ask("actor/ops-demo")
    rows = operations.bench.rows(
        "SELECT sequence FROM opsjobs.audit_events WHERE actor = 'ops-demo' ORDER BY sequence"
    )
    assert [event.audit for event in reversed(found.timeline.events)] == [
        row["sequence"] for row in rows
    ]
    assert texts(found) == [
        "queue.pause of queue/default",
        "job.retry of job/99, refused (unknown_target)",
    ]
    assert (found.completeness, found.lacking) == ("complete", [])
    assert found.diagnosis == "2 decisions, 1 of them refused; the last is job.retry of job/99."
    assert {one.subject for one in found.related} == {"queue/default", "job/99"}
    assert story.ask("actor/nobody").completeness == "unknown"
