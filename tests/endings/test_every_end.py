"""Whatever ends a job: its run goes on or is canceled behind it, and its batch counts it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task, endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.endings.transitions import MOST_FAILED_DELIVERIES, fail_waiting
from flask_opsjobs.jobs.lifecycle import ENDED_BY
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.batches.conftest import batch_of, fold_all
from tests.endings.test_arrows import put
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all

End = Callable[[Bench, Sequence[int]], Any]


def record(**outcome: Any) -> End:
    """A worker records this outcome; a job that it cannot run is handed back no more."""

    def end(bench: Bench, ids: Sequence[int]) -> None:
        made = Outcome(**outcome)
        ended = [EndedAttempt(id, 1, bench.worker_id, bench.name, made) for id in ids]
        now = read_clock(bench.connection)
        endings.write_outcomes(bench.connection, ended, now, hand_back_for=timedelta(0))

    return end


def rescue(bench: Bench, _ids: Sequence[int]) -> None:
    """Its worker was killed, in the last attempt."""
    now = read_clock(bench.connection)
    endings.rescue(bench.connection, [bench.worker_id], now, "it was killed")


def expire(bench: Bench, ids: Sequence[int]) -> None:
    now = read_clock(bench.connection)
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET deadline_at = created_at WHERE id = ANY (%s)", [ids]
    )
    endings.expire(bench.connection, now)


def fail_deliveries(bench: Bench, ids: Sequence[int]) -> None:
    """A poisoned job: RQ fails each delivery without running it."""
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET failed_deliveries = %s WHERE id = ANY (%s)",
        [MOST_FAILED_DELIVERIES - 1, ids],
    )
    now = read_clock(bench.connection)
    endings.count_failed_deliveries(bench.connection, [(id, 1) for id in ids], now)


def decide(end: Callable[..., Any], *more: str) -> End:
    """Somebody or something ends jobs that wait."""

    def decided(bench: Bench, ids: Sequence[int]) -> None:
        end(bench.connection, ids, read_clock(bench.connection), *more)

    return decided


# (state before, what ends it, the state and `ended_by` after)
ENDS: tuple[tuple[str, End, str], ...] = (
    ("started", record(kind="returned"), "finished returned"),
    ("started", record(kind="raised"), "failed exhausted"),
    ("started", record(kind="timed_out"), "failed exhausted"),
    ("started", rescue, "failed exhausted"),
    ("started", record(kind="discarded"), "failed discarded"),
    ("started", record(kind="canceled"), "canceled canceled"),
    ("started", record(kind="raised", ended_by="unrecordable"), "failed unrecordable"),
    ("started", record(kind="not_run", ended_by="unknown_task"), "failed unknown_task"),
    ("started", record(kind="not_run", ended_by="invalid_args"), "failed invalid_args"),
    ("started", record(kind="not_run", ended_by="deadline"), "failed deadline"),
    ("started", record(kind="discarded", ended_by="too_large"), "failed too_large"),
    ("available", expire, "failed deadline"),
    ("queued", fail_deliveries, "failed undeliverable"),
    ("scheduled", decide(endings.cancel, "on purpose"), "canceled canceled"),
    ("retryable", decide(endings.discard, "on purpose"), "failed discarded"),
    ("deferred", decide(fail_waiting, "result_missing", "it is gone"), "failed result_missing"),
)
# Of steps only; tests/endings/test_advance.py and tests/workflows have them.
OF_STEPS = {"dependency", "signaled", "skipped"}
# Of plain RQ jobs only, which no worker of ours runs.
OF_ADOPTED = {"unseen"}


def test_no_end_is_left_out() -> None:
    assert {after.split()[1] for _, _, after in ENDS} == set(ENDED_BY) - OF_STEPS - OF_ADOPTED


@pytest.mark.parametrize(("before", "end", "after"), ENDS)
def test_it_is_passed_on_and_counted(
    before: str,
    end: End,
    after: str,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    note: Task,
) -> None:
    """Cases 11 and 17: nobody waits for ever, and nobody is forgotten."""
    graph = Graph.make(bench.connection, "a b c", ["a b", "a c continue"])
    with opsjobs.batch("import") as batch:
        member = batch.enqueue(note.options(max_attempts=1)).id
    db.session.commit()
    jobs = [graph.ids["a"], member]
    for job in jobs:
        put(bench, job, before)
    end(bench, jobs)
    settle_all(bench.connection)
    fold_all(bench.connection)
    state = after.split()[0]
    behind = "available" if state == "finished" else "canceled"
    assert graph.states() == {"a": state, "b": behind, "c": "available"}
    row = batch_of(bench, batch.id)
    assert row["ends"] == {after: 1}
    assert row["state"] == ("failed" if state == "failed" else "finished")
