"""Operations against each other, against operators, retention and the loop: whoever is first wins, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import ActionRefused, JobFilter, OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import advance, cron, dispatch
from flask_opsjobs.loops.loop import Loop, Runner
from flask_opsjobs.operations.operate import make_turn
from tests.limits.conftest import Limited, limited  # noqa: F401
from tests.operations.conftest import FAILED, OTHER, WHY, Operations, counts_of, failure
from tests.operations.test_operate import Changing
from tests.support.engine import race
from tests.support.waiting import wait_until

TIMES = range(5)
WAITING = JobFilter(queue="default")


def turns(operations: Operations, id: int = 1, number: int = 8) -> Callable[[], int]:
    """Turns of an operation on a connection of their own, as another process makes them; how many rows."""
    host = operations.bench.host

    def run() -> int:
        connection = connect_apart(host.engine)
        try:
            made = [make_turn(connection, host, id, read_clock(connection)) for _ in range(number)]
            return sum(turn.handled for turn in made if turn is not None)
        finally:
            connection.close()

    return run


@pytest.mark.parametrize("time", TIMES)
def test_two_starts_of_one_draft(operations: Operations, time: int) -> None:
    operations.fail(2)
    draft = operations.operator.draft("job.retry", FAILED, actor="anna")
    start = lambda: operations.operator.start_draft(draft.id or 0, **WHY)  # noqa: E731
    answers = race(start, start)
    assert sorted(type(answer).__name__ for answer in answers) == ["ActionRefused", "Receipt"]
    assert operations.audited() == ["operation.start", "operation.start"]


@pytest.mark.parametrize("time", TIMES)
def test_two_clears_of_one_queue_cancel_each_job_once(operations: Operations, time: int) -> None:
    """Beside a job that is enqueued meanwhile, which either of them cancels or none does."""
    ids = operations.enqueue(3)
    clear = lambda: operations.operator.clear_queue("default", **WHY)  # noqa: E731
    race(clear, clear, lambda: operations.enqueue(1))
    race(turns(operations, 1), turns(operations, 2))
    operations.pass_all()
    rows = operations.bench.rows(
        "SELECT job_id, count(*) FILTER (WHERE result = 'done') AS done FROM opsjobs.operation_rows"
        " GROUP BY job_id ORDER BY job_id"
    )
    assert {row["done"] for row in rows} == {1}
    assert [row["job_id"] for row in rows][:3] == ids
    assert operations.states([row["job_id"] for row in rows]) == {"canceled"}


@pytest.mark.parametrize("time", TIMES)
def test_two_undos_of_one_operation(operations: Operations, time: int) -> None:
    """One wins; while it is open, also when it is paused, nobody begins another one."""
    operations.enqueue(3)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.run()
    undo = lambda: operations.operator.undo_operation(1, **WHY)  # noqa: E731
    answers = race(undo, undo)
    assert sorted(type(answer).__name__ for answer in answers) == ["ActionRefused", "Receipt"]
    new = operations.operation()
    assert (new["undo_of"], new["targets"]) == (1, 3)
    already = rf"operation {new['id']} undoes it already"
    assert any(already in str(answer) for answer in answers)
    operations.operator.pause_operation(new["id"], **WHY)
    with pytest.raises(ActionRefused, match=already):
        undo()
    operations.operator.cancel_operation(new["id"], **WHY)
    assert undo().is_done


@pytest.fixture
def gate(operations: Operations) -> Iterator[Callable[[], object]]:
    """Holds up every freeze in the middle of its statement, until the returned function is called."""
    connection = operations.bench.connection
    connection.execute("SELECT pg_advisory_lock(77)")
    connection.execute(
        """CREATE FUNCTION opsjobs.wait() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NEW; END $$;
           CREATE TRIGGER waits BEFORE INSERT ON opsjobs.operation_rows
           FOR EACH ROW WHEN (NEW.number = 2) EXECUTE FUNCTION opsjobs.wait()"""
    )
    yield lambda: connection.execute("SELECT pg_advisory_unlock(77)")
    connection.execute("DROP FUNCTION opsjobs.wait() CASCADE")


def test_what_matches_while_it_is_frozen_is_as_of_one_moment(
    operations: Operations, gate: Callable[[], object]
) -> None:
    """The second job is retried, the third deleted, and one more fails, in the middle of the freeze."""
    ids = operations.fail(4)
    operations.enqueue(1)
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def change() -> None:
        wait_until(lambda: bool(operations.bench.rows(waiting)))
        operations.perform(failure(OTHER))
        operations.operator.retry(ids[1], **WHY)
        operations.operator.delete(ids[2], **WHY)
        gate()

    draft, changed = race(
        lambda: operations.operator.draft("job.discard", FAILED, actor="anna"), change
    )
    assert changed is None
    assert draft.targets == 4
    frozen = [(row["job_id"], row["state"]) for row in operations.receipts()]
    assert frozen == [(id, "failed") for id in ids]
    again = operations.operator.start("job.delete", FAILED, **WHY)
    assert again.targets == 3
    assert counts_of(operations.run()) == {"done": 3}
    operations.operator.start_draft(draft.id, **WHY)
    operations.pass_all()
    assert counts_of(operations.operation(draft.id)) == {"skipped": 4, "drifted": 4}
    codes = [row["code"] for row in operations.receipts(draft.id)]
    assert set(codes) <= {"changed", "not_found", "illegal"}


@pytest.mark.parametrize("time", TIMES)
def test_two_processes_share_an_operation(operations: Operations, time: int) -> None:
    ids = operations.enqueue(150)
    operations.operator.start("job.cancel", WAITING, **WHY)
    handled = race(turns(operations), turns(operations), turns(operations))
    operations.pass_all()
    operation = operations.operation()
    assert operation["state"] == "finished"
    assert counts_of(operation) == {"done": 150}
    assert sum(handled) <= 150
    assert operations.states(ids) == {"canceled"}


@pytest.mark.parametrize("time", TIMES)
def test_a_cancel_against_a_chunk(operations: Operations, time: int) -> None:
    ids = operations.enqueue(150)
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    _, canceled = race(
        turns(operations), lambda: operations.operator.cancel_operation(started.id or 0, **WHY)
    )
    operations.pass_all()
    operation = operations.operation()
    if isinstance(canceled, Receipt):
        assert operation["state"] == "canceled"
    else:
        assert isinstance(canceled, ActionRefused)
        assert operation["state"] == "finished"
    found = operations.bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'canceled'")
    assert found["n"] == operation["done"] <= len(ids)


@pytest.mark.parametrize("time", TIMES)
def test_retention_against_a_chunk(operations: Operations, time: int) -> None:
    operations.fail(40)
    operations.operator.start("job.run_again", FAILED, **WHY, authorize=False)
    connection = connect_apart(operations.bench.host.engine)
    old = {"state": "failed", "before": operations.now.replace(year=2999), "limit": 25}
    race(turns(operations), lambda: connection.execute(sql.load("retain_jobs"), old))
    connection.close()
    rows = operations.receipts()
    done = [row for row in rows if row["result"] in ("done", "proven")]
    new = operations.bench.row(
        "SELECT count(*) AS n FROM opsjobs.jobs WHERE run_again_from IS NOT NULL"
    )
    assert new["n"] == len(done)
    assert {row["code"] for row in rows if row["result"] == "skipped"} <= {"not_found"}


@pytest.mark.parametrize("time", TIMES)
def test_an_operators_own_retry_against_a_chunk(operations: Operations, time: int) -> None:
    ids = operations.fail(1)
    operations.operator.start("job.retry", FAILED, **WHY)
    _, own = race(turns(operations, number=1), lambda: operations.operator.retry(ids, **WHY))
    operations.pass_all()
    (row,) = operations.receipts()
    assert (row["result"] == "done") != isinstance(own, Receipt)
    assert operations.bench.job(ids[0])["max_attempts"] == 2


@pytest.mark.parametrize("time", TIMES)
def test_two_operations_in_crossed_orders_do_not_deadlock(
    operations: Operations, time: int
) -> None:
    ids = operations.enqueue(120)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.operator.start("job.discard", WAITING, **WHY)
    answers = race(
        turns(operations, 1),
        turns(operations, 2),
        lambda: operations.operator.reschedule(ids[::-1][:50], None, **WHY),
        lambda: operations.bench.dispatch(prefetch=30),
    )
    faults = [each for each in answers if isinstance(each, Exception)]
    assert [each for each in faults if not isinstance(each, ActionRefused)] == []
    for id in (1, 2):
        done = [row["job_id"] for row in operations.receipts(id) if row["result"] == "done"]
        state = {1: "canceled", 2: "failed"}[id]
        assert operations.states(done) <= {state}


@pytest.mark.parametrize("time", TIMES)
def test_eight_at_once_never_pass_the_bound(operations: Operations, time: int) -> None:
    policy: Any = Changing()
    policy.bound = 25
    operations.bench.host.access = policy
    operations.enqueue(10)
    drafts = [operations.operator.draft("job.cancel", WAITING, actor="anna") for _ in range(8)]
    answers = race(
        *(lambda id=draft.id: operations.operator.start_draft(id or 0, **WHY) for draft in drafts)
    )
    assert sum(isinstance(answer, Receipt) for answer in answers) == 2
    rows = operations.bench.row(
        "SELECT sum(targets) AS n FROM opsjobs.operations WHERE state = 'running'"
    )
    assert rows["n"] == 20


@pytest.mark.parametrize("time", TIMES)
def test_chunks_against_cron_limits_workflows_and_endings_do_not_deadlock(
    operations: Operations,
    opsjobs: OpsJobs,
    note: Task,
    limited: Limited,  # noqa: F811
    db: Any,
    time: int,
) -> None:
    """Everybody locks jobs and runs in the same order, whoever comes first."""
    bench, host = operations.bench, operations.bench.host
    task = limited(concurrency=100, task={"max_attempts": 1})
    opsjobs.cron("* * * * *", overlap="allow", catch_up=20, args={"text": "cron"})(note)
    flow = opsjobs.workflow("letters")
    first = flow.step("first", note, text="1")
    flow.step("second", note, text="2", after=first)
    for _ in range(10):
        flow.start()
        task.enqueue(account=0)
    plain = operations.enqueue(60)
    now = read_clock(bench.connection)
    make_passes(host, advance.LOOP, now)()
    make_passes(host, cron.LOOP, now)()
    bench.dispatch(prefetch=40)
    bench.dispatch("default|api|0", prefetch=5)
    started = []
    for row in bench.rows("SELECT id FROM opsjobs.jobs WHERE state = 'queued' ORDER BY id DESC"):
        if not hasattr(bench.claim(row["id"]), "reason"):
            started.append(row["id"])
    assert len(started) > 10
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.operator.start("job.discard", JobFilter(state="available"), **WHY)

    answers = race(
        turns(operations, 1),
        turns(operations, 2),
        lambda: [bench.record(id, 1, Outcome(kind="returned")) for id in started],
        make_passes(host, advance.LOOP, now),
        make_passes(host, cron.LOOP, now + timedelta(minutes=5)),
        make_passes(host, dispatch.LOOP, now),
    )
    assert [each for each in answers if isinstance(each, Exception)] == []
    make_passes(host, advance.LOOP, now)()
    assert operations.states(plain) <= {"available", "queued", "canceled", "failed", "finished"}
    assert operations.states(started) == {"finished"}
    leases = bench.row(
        "SELECT count(*) AS n FROM opsjobs.leases l JOIN opsjobs.jobs j ON j.id = l.job_id"
        " WHERE j.state <> 'started'"
    )
    assert leases["n"] == 0
    for id, state in ((1, "canceled"), (2, "failed")):
        done = [row["job_id"] for row in operations.receipts(id) if row["result"] == "done"]
        assert operations.states([job for job in done if job not in started]) <= {state}


def make_passes(host: Host, loop: Loop, now: datetime) -> Callable[[], str | None]:
    """Passes of a loop on a connection of its own; the error of the last one."""

    def run() -> str | None:
        connection, runner = connect_apart(host.engine), Runner(loop, host, loop.name)
        try:
            while runner.run_once(connection, now):
                pass
            assert runner.last_error is None
            return runner.last_error
        finally:
            connection.close()

    return run


class Calendar:
    """A policy that freezes changes on Fridays from 16:00, and bounds who is no lead; `now` is its clock."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def current_actor(self) -> str | None:
        return None

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return True

    def most_targets(self, actor: str, permission: str) -> int | None:
        if self.now.weekday() == 4 and self.now.hour >= 16:
            return 0
        if permission == "job.discard":
            return 2
        return None if actor == "lead" else 5


THURSDAY = datetime(2026, 11, 26, 18, tzinfo=UTC)
FREEZE = datetime(2026, 11, 27, 16, tzinfo=UTC)
# (who, what, when): the most targets; None is no bound.
MOST = {
    ("lead", "job.cancel", THURSDAY): None,
    ("anna", "job.cancel", THURSDAY): 5,
    ("lead", "job.discard", THURSDAY): 2,
    ("anna", "job.discard", THURSDAY): 2,
    ("lead", "job.cancel", FREEZE): 0,
    ("anna", "job.cancel", FREEZE): 0,
    ("anna", "job.discard", FREEZE): 0,
}


@pytest.mark.parametrize(("actor", "action", "when"), MOST, ids=lambda each: str(each))
def test_a_bound_by_actor_action_size_and_time(
    operations: Operations, actor: str, action: str, when: datetime
) -> None:
    """At the plan, which says so; at the start; and together with what already runs."""
    policy = Calendar(when)
    host = operations.bench.host
    host.access = policy
    most = MOST[actor, action, when]
    for size in (1, 2, 3, 5, 6):
        ids = operations.enqueue(size, queue=f"of-{size}")
        who = {"actor": actor, "reason": WHY["reason"]}
        plan = Operator(host).plan(action, [f"job/{id}" for id in ids], actor=actor)
        is_allowed = most is None or size <= most
        assert (len(plan.items) == size) == is_allowed
        assert {skip.code for skip in plan.skipped} == (set() if is_allowed else {"most_targets"})
        if not is_allowed:
            with pytest.raises(ActionRefused, match=r"at once|is frozen now"):
                operations.operator.start(action, JobFilter(queue=f"of-{size}"), **who)
            continue
        started = operations.operator.start(action, JobFilter(queue=f"of-{size}"), **who)
        # It runs: together with it there is room for fewer.
        left = None if most is None else most - size
        more = operations.enqueue((left or 0) + 1, queue=f"more-{size}")
        if left is not None:
            with pytest.raises(ActionRefused, match="of running operations"):
                operations.operator.start(action, JobFilter(queue=f"more-{size}"), **who)
        # A freeze that begins under way pauses it; afterwards it goes on by itself.
        policy.now = FREEZE
        operations.pass_once()
        assert operations.operation(started.id)["code"] == "most_targets"
        policy.now = when
        operations.pass_all()
        assert operations.operation(started.id)["state"] == "finished"
        assert len(more) == (left or 0) + 1
