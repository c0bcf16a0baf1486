from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.db import Connection
from flask_opsjobs.endings.fold import fold, list_batches_to_fold
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench


def fold_all(connection: Connection) -> int:
    """Fold as the loop does, until nothing is left; returns how many calls wrote something."""
    calls = 0
    while True:
        done = [fold(connection, batch) for batch in list_batches_to_fold(connection)]
        worked = [one for one in done if one is not None and not one.is_idle]
        if not worked:
            return calls
        calls += len(worked)


def batch_of(bench: Bench, id: int) -> dict[str, Any]:
    """The row of a batch, which must contradict no invariant, with its counted ends."""
    assert check_batches(bench.connection) == []
    row = bench.row("SELECT * FROM opsjobs.batches WHERE id = %s", id)
    ends = bench.rows("SELECT * FROM opsjobs.batch_ends WHERE batch_id = %s AND number > 0", id)
    return {**row, "ends": {f"{end['state']} {end['ended_by']}": end["number"] for end in ends}}


@pytest.fixture
def row_task(opsjobs: OpsJobs) -> Task:
    """A task that fails for a negative number."""

    @opsjobs.task(max_attempts=1, record_output=True)
    def import_row(number: int = 0) -> int:
        if number < 0:
            raise ValueError("a negative number")
        return number

    return import_row


@pytest.fixture
def heard(opsjobs: OpsJobs) -> list[dict[str, Any]]:
    """What the callbacks heard."""
    return []


@pytest.fixture
def report(opsjobs: OpsJobs, heard: list[dict[str, Any]]) -> Task:
    """A callback that takes all that it can get."""

    @opsjobs.task
    def report(
        batch_id: int,
        name: str,
        state: str,
        end_no: int,
        counts: dict[str, int],
        meta: dict[str, Any],
    ) -> None:
        heard.append(
            {"batch": batch_id, "name": name, "state": state, "end_no": end_no, **counts, **meta}
        )

    return report


@pytest.fixture
def alert(opsjobs: OpsJobs, heard: list[dict[str, Any]]) -> Task:
    """A callback of the first failure."""

    @opsjobs.task
    def alert(batch_id: int) -> None:
        heard.append({"failed": batch_id})

    return alert


@pytest.fixture
def end(bench: Bench) -> Iterator[Callable[..., None]]:
    """Ends a member as a worker does: `end(job_id, kind="returned")`."""

    def end(job_id: int, kind: str = "returned") -> None:
        bench.dispatch(prefetch=1_000)
        number = bench.job(job_id)["dispatch_no"]
        bench.claim(job_id, number)
        bench.record(job_id, number, Outcome(kind=kind))

    yield end
    # Whatever a test did, the counts are right at its end.
    fold_all(bench.connection)
    assert check_batches(bench.connection) == []
