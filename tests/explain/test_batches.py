"""Why a batch has not ended: nobody has closed it, members wait, it cannot be counted, a callback failed."""

from __future__ import annotations

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import UnknownBatch
from flask_opsjobs.explain.reason_kinds import BatchExplanation
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import fold_all
from tests.explain.conftest import wake_loops
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


@pytest.fixture
def row_task(opsjobs: OpsJobs) -> Task:
    """A member that fails for a negative number, at most twice."""

    @opsjobs.task(max_attempts=2, backoff=lambda attempt: 3600.0)
    def import_row(number: int) -> None:
        if number < 0:
            raise ValueError("a negative number")

    return import_row


@pytest.fixture(autouse=True)
def _loops_run(bench: Bench) -> None:
    wake_loops(bench, read_clock(bench.connection))


def explain(opsjobs: OpsJobs, id: int) -> BatchExplanation:
    found = opsjobs.explain(f"batch/{id}")
    assert isinstance(found, BatchExplanation)
    return found


def test_an_open_batch_is_closed_by_the_action_that_helps(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    db.session.commit()
    assert explain(opsjobs, batch.id).reasons[0].read == {"members": "0", "last_added": "never"}
    batch.enqueue(row_task, 1)
    db.session.commit()
    perform_due()
    found = explain(opsjobs, batch.id)
    assert found.says == "It is open, so it cannot end. 0 members of 1 left."
    (reason,) = found.reasons
    opened = bench.row("SELECT created_at FROM opsjobs.batches")["created_at"]
    added = bench.row("SELECT created_at FROM opsjobs.jobs")["created_at"]
    assert (reason.code, reason.since, reason.passes) == ("batch_open", opened, False)
    assert reason.read == {"members": "1", "last_added": f"{added:%Y-%m-%d %H:%M:%S} UTC"}
    assert not found.goes_on
    assert reason.action is not None
    assert reason.target is not None
    assert opsjobs.operator.run(reason.action, [reason.target], **WHY).is_done
    found = explain(opsjobs, batch.id)
    says = "It has ended: of 1 member 1 finished."
    assert (found.state, found.says, found.reasons) == ("finished", says, ())


def test_one_that_has_ended_says_how_its_members_did(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task.options(max_attempts=1), -1)
        batch.enqueue(row_task, 1)
        batch.enqueue(row_task, 2)
    with opsjobs.batch("nothing") as empty:
        pass
    with opsjobs.batch("later") as later:
        later.enqueue(row_task.options(delay=3600), 1)
    db.session.commit()
    assert opsjobs.operator.run("batch.cancel", [f"batch/{later.id}"], **WHY).is_done
    perform_due()
    fold_all(bench.connection)
    assert explain(opsjobs, batch.id).says == "It has ended: of 3 members 2 finished, 1 failed."
    assert explain(opsjobs, empty.id).says == "It has ended: it had no members."
    says = f"It has ended: of 1 member 1 canceled. {WHY['actor']} canceled it: “{WHY['reason']}”"
    assert explain(opsjobs, later.id).says == says


def test_the_oldest_member_of_each_state_says_what_it_waits_for(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task, -1)
        batch.enqueue(row_task, 1)
    db.session.commit()
    perform_due()
    opsjobs.operator.pause("default", **WHY)
    with opsjobs.batch("other") as other:
        other.enqueue(row_task, 1)
    db.session.commit()
    found = explain(opsjobs, batch.id)
    assert found.says == "1 member of 2 left."
    (member,) = found.members.values()
    assert [reason.code for reason in member.reasons][:2] == ["backing_off", "queue_paused"]
    assert found.goes_on
    fold_all(bench.connection)
    found = explain(opsjobs, other.id)
    assert [each.reasons[0].code for each in found.members.values()] == ["queue_paused"]
    assert not found.goes_on


def test_a_silent_fold_loop_makes_the_counts_old(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task.options(delay=3600), 1)
    db.session.commit()
    fold_all(bench.connection)
    assert explain(opsjobs, batch.id).goes_on
    bench.connection.execute(
        "UPDATE opsjobs.loop_runs SET last_at = last_at - interval '1 hour' WHERE loop = 'fold'"
    )
    found = explain(opsjobs, batch.id)
    assert [reason.code for reason in found.reasons] == ["loop_silent"]
    assert found.reasons[0].read["loop"] == "fold"
    assert not found.goes_on


def test_one_that_cannot_be_counted_or_is_canceled_says_so(
    opsjobs: OpsJobs, db: SQLAlchemy, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task.options(delay=3600), 1)
    db.session.commit()
    fold_all(bench.connection)
    bench.connection.execute(
        "UPDATE opsjobs.batches SET cancel_requested_at = now(), cancel_requested_by = 'anna',"
        " cancel_reason = 'a wrong file'"
    )
    assert explain(opsjobs, batch.id).says.startswith("It is being canceled")
    bench.connection.execute("UPDATE opsjobs.batches SET trouble = 'no space left'")
    found = explain(opsjobs, batch.id)
    assert found.says == "Its members cannot be counted. The fold loop tries again."
    assert found.trouble == "no space left"
    assert not found.goes_on


@pytest.mark.parametrize("name", ["batch/42", "batch/0"])
def test_one_that_is_not_there(opsjobs: OpsJobs, db: SQLAlchemy, name: str) -> None:
    with pytest.raises(UnknownBatch):
        opsjobs.explain(name)
