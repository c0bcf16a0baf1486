"""An invariant of a workflow, a batch or a unique lock that somebody broke by SQL is found."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task, Unique
from flask_opsjobs.doctor.compositions import CHECKS
from flask_opsjobs.loops import advance
from flask_opsjobs.loops.loop import Runner
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench
from tests.support.graphs import CALLBACK, Graph, settle_all

OF_RUNS = [
    pytest.param(check.id, marks=shows(check.id))
    for check in CHECKS
    if check.id.startswith("workflows.")
]

BREAK = {
    "workflows.pending": "UPDATE opsjobs.steps SET pending = pending + 1 WHERE name = 'c'",
    # Its job ended, and nobody will hear of it.
    "workflows.settled": "DELETE FROM opsjobs.workflow_end_events",
    "workflows.ended": "UPDATE opsjobs.workflows SET finished = 0, failed = 1",
    "workflows.overlooked": "UPDATE opsjobs.steps SET pending = 0 WHERE name = 'c'",
    "workflows.callbacks": "DELETE FROM opsjobs.callbacks",
}


@pytest.mark.parametrize("check", OF_RUNS)
def test_runs(check: str, bench: Bench, ask: Ask) -> None:
    """In the near miss a step has ended, and nobody has advanced its run yet."""
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"], on_end=CALLBACK)
    graph.end("a")
    assert ask(check).state == "ok"
    settle_all(bench.connection)
    if check == "workflows.callbacks":
        for step in "bc":
            graph.end(step)
            settle_all(bench.connection)
    assert ask(check).state == "ok"
    if check == "workflows.settled":
        graph.end("b")
    bench.connection.execute(BREAK[check])
    found = ask(check)
    assert (found.state, f"Workflow {graph.run} is not consistent" in found.sentence) == (
        "error",
        True,
    ), found


@shows("batches.balance")
def test_batches(opsjobs: OpsJobs, note: Task, bench: Bench, db: SQLAlchemy, ask: Ask) -> None:
    with opsjobs.batch("rows") as batch:
        batch.enqueue_many(note, [{"text": "a"}, {"text": "b"}])
    db.session.commit()
    examined = "1 batch of at most 5,000 members was examined."
    assert ask("batches.balance").evidence == examined
    with opsjobs.batch("too large") as large:
        large.enqueue_many(note, [{"text": "a"}] * 5_001)
    db.session.commit()  # and nobody has folded them
    assert ask("batches.balance").evidence == examined
    bench.connection.execute("UPDATE opsjobs.batches SET enqueued = 1")
    bench.connection.execute("DELETE FROM opsjobs.batch_end_events")
    found = ask("batches.balance")
    assert found.state == "error"
    assert "2 members are stored, but 1 were counted" in found.sentence


@shows("signals.ambiguous")
def test_signals(opsjobs: OpsJobs, bench: Bench, db: SQLAlchemy, ask: Ask) -> None:
    """Two waits of one run are open for the same signal."""
    flow = opsjobs.workflow("order")
    flow.wait("paid", signal="payment", key="order-42")
    flow.wait("paid_twice", signal="payment", key="order-42")
    flow.wait("sent", signal="parcel", key="order-42")
    flow.start()
    db.session.commit()
    loop = Runner(advance.LOOP, bench.host, "one")
    loop.run_once(bench.connection)
    for name in ("parcel", "payment"):
        assert ask("signals.ambiguous").state == "ok"
        opsjobs.signal(name, key="order-42")
        db.session.commit()
        loop.run_once(bench.connection)
    assert ask("signals.ambiguous").sentence.startswith(
        "Signal 2 (payment) fits several open waits"
    )


@shows("unique_locks.left")
def test_unique_locks(opsjobs: OpsJobs, bench: Bench, db: SQLAlchemy, ask: Ask) -> None:
    @opsjobs.task(unique=Unique(until="ended"))
    def alone() -> None: ...

    @opsjobs.task(unique=Unique(within=timedelta(hours=1)))
    def hourly() -> None: ...

    job, kept = alone.enqueue(), hourly.enqueue()
    db.session.commit()
    # A lock with an expiry outlives its job.
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [kept.id])
    assert ask("unique_locks.left").state == "ok"
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [job.id])
    found = ask("unique_locks.left")
    assert (found.state, found.sentence) == (
        "error",
        f"Job {job.id} is gone, and its unique lock is still there.",
    )
