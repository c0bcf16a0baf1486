"""Batches as a host writes them: opened, filled, closed, ended and reported."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import (
    ActionRefused,
    Batch,
    BatchClosed,
    InvalidArgs,
    InvalidBatch,
    OpsJobs,
    OpsJobsError,
    Task,
    Unique,
    UnknownBatch,
    WrongSession,
    current_job,
)
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import batch_of, fold_all
from tests.support.engine import Bench
from tests.support.processes import Children
from tests.support.runs import read
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


def test_a_batch_ends_with_its_last_member_and_reports_once(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    report: Task,
    alert: Task,
    heard: list[dict[str, Any]],
) -> None:
    with opsjobs.batch("import", on_end=report, on_failure=alert, meta={"file": "a.csv"}) as batch:
        added = batch.enqueue_many(row_task, ({"number": number} for number in range(-2, 8)))
        batch.enqueue(row_task.options(priority=1), 99)
    db.session.commit()
    assert added.count == 10
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"], row["end_no"], row["lost"]) == ("failed", 11, 1, 0)
    assert row["ends"] == {"finished returned": 9, "failed exhausted": 2}
    told = {"enqueued": 11, "finished": 9, "failed": 2, "canceled": 0, "lost": 0}
    whole = {"batch": batch.id, "name": "import", "state": "failed", "end_no": 1, "file": "a.csv"}
    assert heard == [{"failed": batch.id}, {**whole, **told}]
    perform_due()
    assert len(heard) == 2


def test_a_batch_without_a_failure_is_finished(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task, alert: Task, heard: list[Any]
) -> None:
    with opsjobs.batch("import", on_failure=alert) as batch:
        batch.enqueue(row_task, 1)
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["state"] == "finished"
    assert heard == []


def test_an_empty_batch_ends_when_it_is_closed_and_calls_back(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, report: Task, heard: list[dict[str, Any]]
) -> None:
    """Case 8."""
    batch = opsjobs.batch("nothing", on_end=report).open()
    db.session.commit()
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["state"] == "open"
    batch.close()
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["state"] == "finished"
    assert [one["enqueued"] for one in heard] == [0]


def test_an_open_batch_does_not_end_although_all_its_members_have(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    batch.enqueue(row_task, 1)
    db.session.commit()
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"], row["ends"]) == ("open", 1, {"finished returned": 1})
    with opsjobs.batch(id=batch.id) as again:
        again.enqueue(row_task, 2)
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["enqueued"] == 2
    assert batch_of(bench, batch.id)["state"] == "finished"


def test_a_member_that_will_be_retried_has_not_ended(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    """Case 4."""

    @opsjobs.task(max_attempts=2)
    def fail() -> None:
        raise ValueError("no")

    with opsjobs.batch("import") as batch:
        batch.enqueue(fail)
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["state"] == "running"
    assert batch_of(bench, batch.id)["ends"] == {}


def _add_one_and_fail(batch: Batch, task: Task) -> None:
    with batch:
        batch.enqueue_many(task, [{"number": 1}])
        batch.enqueue(task, "many")


def test_an_exception_in_the_block_is_rolled_back_with_the_transaction(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, row_task: Task
) -> None:
    batch = opsjobs.batch("import")
    with pytest.raises(InvalidArgs):
        _add_one_and_fail(batch, row_task)
    db.session.rollback()
    for table in ("batches", "jobs", "batch_end_events"):
        assert read(host, f"SELECT * FROM opsjobs.{table}") == []
    with pytest.raises(UnknownBatch, match=f"there is no batch {batch.id}"):
        batch.enqueue(row_task, 1)


def test_an_exception_in_the_block_leaves_the_batch_open_when_the_host_commits(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import")
    with pytest.raises(InvalidArgs):
        _add_one_and_fail(batch, row_task)
    db.session.commit()
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"]) == ("open", 1)


def test_a_crash_in_the_middle_leaves_what_was_committed_and_the_batch_can_be_filled_further(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    def rows() -> Iterator[dict[str, int]]:
        for number in range(1_000):
            if number == 250:
                raise OSError("the file is gone")
            yield {"number": number}

    with pytest.raises(OSError, match="gone"), opsjobs.batch("import") as batch:
        batch.enqueue_many(row_task, rows(), commit_every=100)
    db.session.rollback()
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"]) == ("open", 200)
    with opsjobs.batch(id=batch.id) as again:
        again.enqueue_many(row_task, [{"number": 1}] * 50, commit_every=20)
    db.session.commit()
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"]) == ("finished", 250)


STREAMS = """
import os, signal
from tests.support.host import add, create_app, db, opsjobs

def rows():
    for number in range(1_000):
        if number == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"a": number, "b": 1}

with create_app(OPSJOBS_DISPATCH=False).app_context():
    with opsjobs.batch("import") as batch:
        batch.enqueue_many(add, rows(), commit_every=100)
"""


def test_a_host_that_is_killed_while_it_adds_leaves_an_open_batch_to_fill_further(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task, children: Children
) -> None:
    killed = children.python("-c", STREAMS)
    wait_until(lambda: killed.exit_code is not None, what="the host to die")
    assert killed.exit_code == -9
    fold_all(bench.connection)
    (row,) = bench.rows("SELECT id, state, enqueued FROM opsjobs.batches")
    assert (row["state"], row["enqueued"]) == ("open", 200)
    with opsjobs.batch(id=row["id"]) as again:
        again.enqueue_many(row_task, [{"number": number} for number in range(3)])
    db.session.commit()
    fold_all(bench.connection)
    whole = batch_of(bench, row["id"])
    assert (whole["state"], whole["enqueued"]) == ("running", 203)


def test_an_error_about_a_row_names_its_number_in_the_whole_series(
    db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task
) -> None:
    rows: list[dict[str, Any]] = [{"number": number} for number in range(25)]
    rows[23] = {"number": "many"}
    batch = opsjobs.batch("import").open()
    with pytest.raises(InvalidArgs) as caught:
        batch.enqueue_many(row_task, rows, commit_every=10)
    assert caught.value.errors[0]["loc"] == "[23].number"


@pytest.mark.slow
def test_a_generator_is_streamed_in_constant_memory(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    """Case 25."""
    batch = opsjobs.batch("import").open()
    batch.enqueue_many(row_task, ({"number": number} for number in range(5_000)))
    tracemalloc.start()
    batch.enqueue_many(
        row_task, ({"number": number} for number in range(20_000)), commit_every=2_000
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The rows alone would take 5 MB.
    assert peak < 2_000_000
    fold_all(bench.connection)
    assert bench.row("SELECT enqueued FROM opsjobs.batches")["enqueued"] == 25_000


def test_a_unique_call_that_conflicts_is_no_member(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    @opsjobs.task(unique=Unique(until="ended"))
    def sync(account_id: int) -> None: ...

    sync.enqueue(1)
    with opsjobs.batch("import") as batch:
        assert batch.enqueue(sync, 1).conflict
        assert not batch.enqueue(sync, 2).conflict
        added = batch.enqueue_many(sync, [{"account_id": number} for number in (1, 2, 3, 3)])
    assert (added.count, added.conflicts) == (1, 3)
    db.session.commit()
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"]) == ("finished", 2)


def test_a_closed_batch_takes_no_members(db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task) -> None:
    """Case 7."""
    with opsjobs.batch("import") as batch:
        pass
    batch.close()  # once more does nothing
    says = f"batch {batch.id} takes no members any more: it is running"
    for add in (
        lambda: batch.enqueue(row_task, 1),
        lambda: batch.enqueue_many(row_task, [{}]),
        lambda: opsjobs.batch(id=batch.id).open(),
    ):
        with pytest.raises(BatchClosed, match=says):
            add()


def test_the_session_of_a_batch_is_that_of_its_members(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    with Session(db.engine) as session:
        with opsjobs.batch("import", session=session) as batch:
            batch.enqueue(row_task, 1)
            batch.enqueue_many(row_task, [{}])
            with pytest.raises(WrongSession, match="give session= to opsjobs"):
                batch.enqueue(row_task.options(session=db.session), 1)
        session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["enqueued"] == 2


def test_a_member_knows_its_batch_and_another_job_none(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    seen: list[Any] = []

    @opsjobs.task
    def look() -> None:
        seen.append(current_job().batch)

    with opsjobs.batch("import", meta={"file": "a.csv"}) as batch:
        batch.enqueue(look)
    look.enqueue()
    db.session.commit()
    perform_due()
    found, none = seen
    assert (found.id, found.name, found.meta) == (batch.id, "import", {"file": "a.csv"})
    assert none is None


def test_what_cannot_be_opened_names_every_fault_and_writes_nothing(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, row_task: Task
) -> None:
    wrong: Any = {"meta": {"a": {1, 2, float("nan")}}, "on_end": row_task, "on_failure": "alert"}
    with pytest.raises(InvalidBatch) as caught:
        opsjobs.batch("x" * 201, **wrong).open()
    said = str(caught.value)
    assert "its name must have 1 to 200 characters, it has 201" in said
    assert "its meta" in said
    assert f"its on_end is task {row_task.name}, which does not accept batch_id" in said
    assert "its on_failure must be a task, got str" in said
    db.session.commit()
    assert read(host, "SELECT * FROM opsjobs.batches") == []


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 7])
def test_a_bad_name_is_refused(name: Any, db: SQLAlchemy, opsjobs: OpsJobs) -> None:
    with pytest.raises(InvalidBatch, match="its name"):
        opsjobs.batch(name).open()


@pytest.mark.parametrize("name", ["../../x", "😀" * 200, "<script>"])
def test_any_text_may_be_a_name(name: str, db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench) -> None:
    with opsjobs.batch(name) as batch:
        pass
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["name"] == name


def test_a_wrong_call_says_so(db: SQLAlchemy, opsjobs: OpsJobs, row_task: Task) -> None:
    anything: Any = opsjobs
    with pytest.raises(TypeError, match="a name, or the id"):
        anything.batch()
    with pytest.raises(TypeError, match="batch 7 was opened with its name"):
        anything.batch("import", id=7)
    with pytest.raises(OpsJobsError, match="the batch is not open"):
        opsjobs.batch("import").enqueue(row_task, 1)
    with pytest.raises(UnknownBatch, match="there is no batch 7"):
        opsjobs.batch(id=7).close()
    batch = opsjobs.batch("import").open()
    with pytest.raises(TypeError, match="a batch takes a task"):
        batch.enqueue(anything.task, 1)
    with pytest.raises(TypeError, match="takes dicts of arguments"):
        batch.enqueue_many(row_task, anything.tasks, commit_every=10)
    for number in (0, True, "x"):
        with pytest.raises(ValueError, match="a number of rows from 1 on"):
            anything.batch(id=batch.id).enqueue_many(row_task, [], commit_every=number)


@pytest.mark.parametrize("id", ["abc", "7", 0, -1, 2**63, True, 7.0, "x" * 1_000_000])
def test_what_is_no_id_is_refused_in_a_short_sentence(
    id: Any, db: SQLAlchemy, opsjobs: OpsJobs
) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: opsjobs.batch(id=id), "id must be the id of a batch, such as 7, got "),
        (lambda: opsjobs.signal("payment", run=id), "run must be the id of a workflow, got "),
        (lambda: opsjobs.explain(id), "names no job, no workflow and no batch"),
        (lambda: opsjobs.operator.close_batch(id, **WHY), "is not a target of|there is no batch"),
    ]
    for call, sentence in calls:
        with pytest.raises(OpsJobsError, match=sentence) as caught:
            call()
        assert len(str(caught.value)) < 300


def test_a_rolled_back_batch_says_how_to_open_it_again_and_is_opened_anew(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import", meta={"file": "a.csv"}).open()
    lost = batch.id
    db.session.rollback()
    uses: list[Callable[[], object]] = [
        lambda: batch.enqueue(row_task),
        lambda: batch.enqueue_many(row_task, [{}]),
        batch.close,
    ]
    for use in uses:
        with pytest.raises(
            UnknownBatch, match=f"there is no batch {lost}: .* rolled back.*batch.open"
        ):
            use()
    with batch:
        batch.enqueue(row_task)
    db.session.commit()
    perform_due()
    assert batch.id != lost
    (row,) = bench.rows("SELECT id, state, meta FROM opsjobs.batches")
    assert row == {"id": batch.id, "state": "finished", "meta": {"file": "a.csv"}}


def test_a_batch_in_a_rolled_back_savepoint_is_opened_anew_and_a_committed_one_is_taken_again(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import")
    savepoint = db.session.begin_nested()
    batch.open()
    savepoint.rollback()
    id = batch.open().id
    db.session.commit()
    batch.enqueue(row_task)
    db.session.rollback()
    with batch:
        batch.enqueue(row_task)
    db.session.commit()
    perform_due()
    assert batch.id == id
    row = batch_of(bench, id)
    assert (row["state"], row["enqueued"]) == ("finished", 1)
    with pytest.raises(BatchClosed):
        batch.open()


def test_a_callback_keeps_its_tags_and_meta(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, report: Task
) -> None:
    on_end = report.options(tags=["billing"], meta={"owner": "anna"})
    batch = opsjobs.batch("nothing", on_end=on_end).open()
    batch.close()
    db.session.commit()
    perform_due()
    job = bench.row("SELECT tags, meta FROM opsjobs.jobs WHERE task = %s", report.name)
    assert job == {"tags": ["billing"], "meta": {"owner": "anna"}}


def test_a_callback_that_is_gone_ends_by_name(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, report: Task
) -> None:
    with opsjobs.batch("import", on_end=report) as batch:
        pass
    db.session.commit()
    del opsjobs.tasks[report.name]
    perform_due()
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = %s", report.name)
    assert (job["state"], job["ended_by"]) == ("failed", "unknown_task")
    assert batch_of(bench, batch.id)["state"] == "finished"


def delete_newest(bench: Bench) -> None:
    """Delete the newest job by SQL."""
    newest = "(SELECT max(id) FROM opsjobs.jobs)"
    bench.connection.execute(f"DELETE FROM opsjobs.jobs WHERE id = {newest}")


def test_a_member_whose_row_was_deleted_by_sql_is_lost_and_fails_its_batch(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    report: Task,
    heard: list[dict[str, Any]],
) -> None:
    """The first failure is reported just before the end."""
    with opsjobs.batch("import", on_end=report, on_failure=report) as batch:
        batch.enqueue_many(row_task, [{}, {}, {}])
    db.session.commit()
    delete_newest(bench)
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"], row["lost"]) == ("failed", 3, 1)
    assert row["first_failed_at"] == row["ended_at"]
    told = [(one["state"], one["end_no"], one["finished"], one["lost"]) for one in heard]
    assert told == [("failed", 1, 2, 1)] * 2
    events = "SELECT event FROM opsjobs.callbacks ORDER BY job_id"
    assert [callback["event"] for callback in bench.rows(events)] == ["failure", "end"]
    with pytest.raises(ActionRefused, match="the rows of its lost members are gone"):
        opsjobs.operator.retry_batch(batch.id, **WHY)


def test_a_batch_with_a_lost_member_reports_one_first_failure_over_all_its_ends(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    alert: Task,
    heard: list[dict[str, Any]],
) -> None:
    with opsjobs.batch("import", on_failure=alert) as batch:
        first = batch.enqueue(row_task)
        batch.enqueue(row_task)
    db.session.commit()
    delete_newest(bench)
    opsjobs.operator.cancel(first.id, **WHY)
    perform_due()
    assert heard == [{"failed": batch.id}]
    opsjobs.operator.retry(first.id, **WHY)
    assert batch_of(bench, batch.id)["state"] == "running"
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["end_no"], row["lost"]) == ("failed", 2, 1)
    assert heard == [{"failed": batch.id}]


def test_a_failed_and_a_lost_member_are_one_first_failure(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    alert: Task,
    heard: list[dict[str, Any]],
    end: Callable[..., None],
) -> None:
    """Also when one fold finds both."""
    with opsjobs.batch("import", on_failure=alert) as batch:
        first = batch.enqueue(row_task)
        batch.enqueue(row_task)
    db.session.commit()
    delete_newest(bench)
    end(first.id, "raised")
    perform_due()
    assert batch_of(bench, batch.id)["lost"] == 1
    assert heard == [{"failed": batch.id}]


def test_a_canceled_batch_with_a_lost_member_is_canceled(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    alert: Task,
    heard: list[dict[str, Any]],
) -> None:
    with opsjobs.batch("import", on_failure=alert) as batch:
        batch.enqueue_many(row_task, [{}, {}])
    db.session.commit()
    delete_newest(bench)
    opsjobs.operator.cancel_batch(batch.id, **WHY)
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["lost"], row["first_failed_at"], heard) == ("canceled", 1, None, [])


def test_members_that_were_canceled_one_by_one_do_not_fail_their_batch(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    report: Task,
    alert: Task,
    heard: list[dict[str, Any]],
) -> None:
    with opsjobs.batch("import", on_end=report, on_failure=alert) as batch:
        members = [batch.enqueue(row_task) for _ in range(2)]
    db.session.commit()
    opsjobs.operator.cancel([member.id for member in members], **WHY)
    perform_due()
    assert batch_of(bench, batch.id)["state"] == "finished"
    assert [(one["state"], one["canceled"], one["finished"]) for one in heard] == [
        ("finished", 2, 0)
    ]


def test_a_batch_whose_members_are_all_lost_ends(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task)
    db.session.commit()
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["state"] == "running"
    bench.connection.execute("DELETE FROM opsjobs.jobs")
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["lost"]) == ("failed", 1)


def test_ends_of_every_kind_are_counted(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task, end: Callable[..., None]
) -> None:
    """Case 17."""
    with opsjobs.batch("import") as batch:
        jobs = [batch.enqueue(row_task, 1).id for _ in range(4)]
    db.session.commit()
    for job, kind in zip(jobs, ("returned", "raised", "discarded", "canceled"), strict=True):
        end(job, kind)
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["ends"] == {
        "finished returned": 1,
        "failed exhausted": 1,
        "failed discarded": 1,
        "canceled canceled": 1,
    }
