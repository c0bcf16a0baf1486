"""The bundle of a batch, compared with what its members and callbacks did."""

from __future__ import annotations

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.testing import perform_due
from tests.support.engine import Bench

from .conftest import WHY, Story, actions, texts


@pytest.fixture
def heard() -> list[str]:
    """What tasks and callbacks were called with."""
    return []


@pytest.fixture
def row_task(opsjobs: OpsJobs, heard: list[str]) -> Task:
    """A task that fails for a negative number."""

    @opsjobs.task(max_attempts=1)
    def import_row(number: int = 0) -> None:
        heard.append(str(number))
        if number < 0:
            raise ValueError("a negative number")

    return import_row


@pytest.fixture
def report(opsjobs: OpsJobs, heard: list[str]) -> Task:
    """A callback."""

    @opsjobs.task
    def report(batch_id: int, state: str) -> None:
        heard.append(f"batch {batch_id} {state}")

    return report


def test_a_batch_is_told_member_by_member(
    story: Story, db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task, report: Task, heard: list[str]
) -> None:
    with opsjobs.batch("import", on_end=report) as batch:
        members = [batch.enqueue(row_task, number).id for number in (1, -2)]
    db.session.commit()
    perform_due()
    assert heard == ["1", "-2", f"batch {batch.id} failed"]
    found = story.ask(f"batch/{batch.id}")
    callback = members[-1] + 1
    assert sorted(texts(found)) == sorted(
        [
            "Opened",
            "Closed: no member can be added any more",
            f"Member {members[0]} finished",
            f"Member {members[1]} failed",
            "Its first member failed, or was found to be lost",
            "Failed: no member is open, and one or more failed or were lost",
            f"Job {callback} was enqueued, to report end 1",
        ]
    )
    assert (found.completeness, found.lacking, found.state) == ("complete", [], "failed")
    assert found.diagnosis == "It has ended: of 2 members 1 finished, 1 failed."
    assert actions(found) == ["batch.retry"]
    errors = next(table for table in found.evidence if table.title.startswith("Errors"))
    assert [list(row.cells) for row in errors.rows] == [
        ["ValueError: a negative number", "the last attempt failed", 1]
    ]
    assert ("Callback", f"job/{callback}") in {(one.how, one.subject) for one in found.related}
    # A retry lets it end once more; the callback tells when it ended before.
    story.operator.retry_batch(batch.id, **WHY)
    perform_due()
    again = story.ask(f"batch/{batch.id}")
    assert (again.completeness, again.state) == ("complete", "failed")
    assert "ops-demo: retry" in texts(again)


def test_without_a_callback_its_first_end_is_overwritten(
    story: Story, db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task, -1)
    db.session.commit()
    perform_due()
    story.operator.retry_batch(batch.id, **WHY)
    perform_due()
    found = story.ask(f"batch/{batch.id}")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == [
        "when it ended before it was reopened: only its last end is stored"
    ]


def test_while_nobody_folds_its_members_are_not_counted(
    story: Story, db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    batch.enqueue(row_task, 1)
    db.session.commit()
    story.later(60, without=("fold",))
    found = story.ask(f"batch/{batch.id}")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == [
        "Members that ended since are not counted, so it cannot end."
    ]
    assert "batch.close" in actions(found)


def test_after_retention_and_without_any_row(
    story: Story, db: SQLAlchemy, bench: Bench, opsjobs: OpsJobs, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        for number in range(3):
            batch.enqueue(row_task, number)
    db.session.commit()
    perform_due()
    count = "SELECT count(*) AS n FROM opsjobs.jobs WHERE batch_id = %s"
    story.retain_until(lambda: bench.row(count, batch.id)["n"] == 2)
    found = story.ask(f"batch/{batch.id}")
    assert found.completeness == "history unavailable"
    assert [lack.says for lack in found.lacking] == ["1 finished member: the rows were removed"]
    story.retain_until(lambda: not bench.rows("SELECT 1 FROM opsjobs.batches"))
    assert story.ask(f"batch/{batch.id}").completeness == "history unavailable"
    assert story.ask("batch/999").completeness == "unknown"
