"""Two connections start at once: one open run per key, one holder per unique lock, and no deadlock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from flask_opsjobs import InvalidWorkflow, OpsJobs, Started, Task, Unique, Workflow
from flask_opsjobs.host import Host
from tests.support.engine import Bench
from tests.support.engine import race as at_once
from tests.support.plans import explain
from tests.support.runs import count_rows, read, steps_of
from tests.support.waiting import wait_until

_WAITING = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_RUNS = """
    INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at, unique_key)
    SELECT 'sync', 'running', '{}', '', 1, clock_timestamp(), 'key ' || n FROM generate_series(1, 5000) AS n
"""
_END = """
    UPDATE opsjobs.workflows SET state = 'canceled', ended_at = clock_timestamp(), ended_by = 'canceled'
    WHERE id = :id
"""


@pytest.fixture
def engine(host: Host) -> Engine:
    return host.engine


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def sync(opsjobs: OpsJobs, host: Host) -> Task:
    @opsjobs.task(unique=Unique(until="ended"))
    def sync(account: int) -> None: ...

    return sync


def make_flow(host: Host, task: Task, *accounts: int) -> Workflow:
    """A workflow without an app context, as threads need it."""
    flow = Workflow("sync", host=lambda: host)
    for account in accounts:
        flow.step(f"account {account}", task, account=account)
    return flow


def start(engine: Engine, flow: Workflow, **options: Any) -> Started:
    with Session(engine) as session:
        run = flow.start(session=session, **options)
        session.commit()
        return run


def meet(
    engine: Engine,
    pool: ThreadPoolExecutor,
    first: Callable[[Session], Any],
    second: Callable[[], Any],
    how_the_first_ends: str,
) -> tuple[Any, Future[Any]]:
    """The first does not commit until the second waits for it."""
    with Session(engine) as session:
        done = first(session)
        waiting = pool.submit(second)

        def waits() -> bool:
            # Postgres shows a transaction the same sessions again and again.
            with engine.connect() as other:
                return other.scalar(text(_WAITING)) is not None

        wait_until(waits, what="the second to wait for the first")
        assert not waiting.done()
        getattr(session, how_the_first_ends)()
    return done, waiting


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_two_starts_with_one_key(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, bill: Task, how: str
) -> None:
    flow = make_flow(host, bill)
    flow.step("a", bill)
    first, waiting = meet(
        engine,
        pool,
        lambda session: flow.start(unique="key", session=session),
        lambda: start(engine, flow, unique="key"),
        how,
    )
    second = waiting.result(timeout=10)
    if how == "commit":
        assert second == Started(first.id, 1, conflict=True)
    else:
        assert not second.conflict
    assert count_rows(host)["workflows"] == count_rows(host)["jobs"] == 1


def test_of_many_starts_at_once_one_writes(host: Host, engine: Engine, bill: Task) -> None:
    flow = make_flow(host, bill)
    flow.step("a", bill)
    for number in range(10):
        runs = at_once(*[lambda key=f"key {number}": start(engine, flow, unique=key)] * 6)
        assert sorted(run.conflict for run in runs) == [False, *[True] * 5]
        assert len({run.id for run in runs}) == 1
    assert count_rows(host)["workflows"] == 10


def test_starts_meet_runs_that_end(host: Host, engine: Engine, bill: Task) -> None:
    """Each start gets a run that was open when it looked, and no run is started beside an open one."""
    flow = make_flow(host, bill)
    flow.step("a", bill)

    def start_and_end() -> list[Started]:
        runs = []
        for _ in range(30):
            runs.append(start(engine, flow, unique="key"))
            with engine.begin() as connection:
                connection.execute(text(_END), {"id": runs[-1].id})
        return runs

    answers = at_once(*[start_and_end] * 4)
    written = {run.id for runs in answers for run in runs if not run.conflict}
    met = {run.id for runs in answers for run in runs if run.conflict}
    found = read(host, "SELECT id FROM opsjobs.workflows")
    assert {row["id"] for row in found} == written >= met


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_a_start_meets_an_enqueue_of_the_same_unique_call(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, sync: Task, how: str
) -> None:
    sync.host = lambda: host
    flow = make_flow(host, sync, 1, 2)
    job, waiting = meet(
        engine,
        pool,
        lambda session: sync.options(session=session).enqueue(2),
        lambda: start(engine, flow),
        how,
    )
    if how == "commit":
        with pytest.raises(
            InvalidWorkflow, match=f"step account 2: job {job.id}, which is available"
        ):
            waiting.result(timeout=10)
        assert count_rows(host)["unique_locks"] == count_rows(host)["jobs"] == 1
    else:
        assert waiting.result(timeout=10).steps == 2
        assert count_rows(host)["unique_locks"] == count_rows(host)["jobs"] == 2


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_an_enqueue_meets_a_start_of_the_same_unique_call(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, sync: Task, how: str
) -> None:
    sync.host = lambda: host
    flow = make_flow(host, sync, 1, 2)

    def enqueue() -> Any:
        with Session(engine) as session:
            job = sync.options(session=session).enqueue(2)
            session.commit()
            return job

    run, waiting = meet(engine, pool, lambda session: flow.start(session=session), enqueue, how)
    job = waiting.result(timeout=10)
    if how == "commit":
        assert (job.conflict, job.id) == (True, steps_of(host, run.id)["account 2"]["id"])
    else:
        assert (job.conflict, count_rows(host)["jobs"]) == (False, 1)


def test_starts_in_crossed_orders_do_not_deadlock(host: Host, engine: Engine, sync: Task) -> None:
    """Each takes the same locks in another order; one gets them all, the others none."""
    for number in range(20):
        accounts = range(10 * number, 10 * number + 10)
        flows = [make_flow(host, sync, *order) for order in (accounts, accounts[::-1])] * 2
        answers = at_once(*[lambda flow=flow: start(engine, flow) for flow in flows])
        kinds = sorted(type(answer).__name__ for answer in answers)
        assert kinds == ["InvalidWorkflow", "InvalidWorkflow", "InvalidWorkflow", "Started"]
    assert count_rows(host)["unique_locks"] == count_rows(host)["jobs"] == 200


def test_statements_walk_their_indexes(bench: Bench) -> None:
    keys = {"keys": [b"1", b"2"], "ids": [1, 2]}
    values = {"name": "sync", "unique_key": "a"}
    lock = {**keys, "untils": ["ended"] * 2, "withins": [None] * 2, "now": datetime.now(UTC)}
    bench.connection.execute(_RUNS)
    bench.connection.execute("ANALYZE opsjobs.workflows")
    indexes = {
        statement: {node.get("Index Name") for node in explain(bench.connection, statement, given)}
        for statement, given in (
            ("find_open_workflow", values),
            ("list_steps_without_lock", keys),
        )
    }
    assert "workflows_open_key" in indexes["find_open_workflow"]
    assert "unique_locks_pkey" in indexes["list_steps_without_lock"]
    (arbiter,) = {
        tuple(node["Conflict Arbiter Indexes"])
        for node in explain(bench.connection, "take_locks_of_steps", lock)
        if "Conflict Arbiter Indexes" in node
    }
    assert arbiter == ("unique_locks_pkey",)
