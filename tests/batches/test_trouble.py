"""A batch that cannot be folded: a worker's ends and heartbeats go on, it says so, and it heals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.loops.fold import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.batches.conftest import batch_of
from tests.support.engine import Bench
from tests.support.recording import Record, recording
from tests.support.waiting import wait_until

MEMBERS = 1_000
MAKE = """
    WITH batch AS (
        INSERT INTO opsjobs.batches (name, state, created_at, closed_at, enqueued)
        SELECT 'import', 'running', clock_timestamp(), clock_timestamp(), %(members)s
        FROM generate_series(1, %(batches)s) RETURNING id
    )
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, batch_id,
        dispatch_no, attempt, started_at)
    SELECT 'call', 'default', 'default', 'started', '{}', 1, clock_timestamp(), clock_timestamp(), batch.id,
        1, 1, clock_timestamp()
    FROM batch CROSS JOIN generate_series(1, %(members)s)
    RETURNING id
"""
BREAK = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'broken on purpose'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON opsjobs.batch_ends
        FOR EACH ROW EXECUTE FUNCTION refuse()
"""
MEND = "DROP TRIGGER refuse ON opsjobs.batch_ends; DROP FUNCTION refuse"
OPEN = "SELECT 1 FROM opsjobs.batches WHERE state = 'running' AND trouble IS NULL"


@pytest.fixture
def record(bench: Bench) -> Iterator[Record]:
    """Ends jobs through a real recorder, with a heartbeat each 0.2 s."""
    with recording(bench, 0.2) as record:
        yield record


def make_members(bench: Bench, batches: int, members: int) -> list[int]:
    """Closed batches whose members run; returns the jobs."""
    values = {"batches": batches, "members": members}
    return [id for (id,) in bench.connection.execute(MAKE, values)]


@pytest.mark.parametrize("batches", [1, 100])
def test_ends_of_batches_that_cannot_be_folded_are_recorded_at_their_pace(
    bench: Bench, host: Host, record: Record, caplog: pytest.LogCaptureFixture, batches: int
) -> None:
    """Heartbeats come in time, a line is logged for each, and once they are mended they heal."""
    paces: dict[bool, list[float]] = {True: [], False: []}
    for is_well in (True, False, True, False):
        jobs = make_members(bench, batches, MEMBERS // batches)
        if not is_well:
            bench.connection.execute(BREAK)
        pace, late = record(jobs)
        paces[is_well].append(pace)
        assert late < 1
        wait_until(lambda: not bench.rows(OPEN), what="the batches to end, or to say trouble")
        if not is_well:
            bench.connection.execute(MEND)
    assert min(paces[False]) < 1.5 * min(paces[True]) + 0.2, paces
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert (
        sum("cannot be folded, and is tried again: Raise" in line for line in said) == 2 * batches
    )
    runner = Runner(LOOP, host)

    def are_ended() -> bool:
        runner.run_once(bench.connection)
        return not bench.rows("SELECT 1 FROM opsjobs.batches WHERE state <> 'finished'")

    wait_until(are_ended, 30)
    assert bench.rows("SELECT 1 FROM opsjobs.batches WHERE trouble IS NOT NULL") == []
    assert check_batches(bench.connection) == []


@pytest.mark.parametrize("locked", ["jobs", "batches"])
def test_a_member_or_a_batch_that_is_locked_for_long_makes_no_heartbeat_of_a_worker_late(
    bench: Bench, host: Host, record: Record, locked: str
) -> None:
    """The fold loop asks for all members of a canceled batch to be stopped, and waits for the locked one.
    Meanwhile the worker ends the others.
    """
    others = make_members(bench, 1, MEMBERS)
    member = others.pop(
        MEMBERS // 2
    )  # in whichever order a fold stops them, it has asked for many before
    (batch,) = bench.rows("SELECT id FROM opsjobs.batches")
    bench.connection.execute(
        "UPDATE opsjobs.batches SET cancel_requested_at = now(), cancel_requested_by = 'anna',"
        " cancel_reason = 'a test'"
    )
    with closing(connect_apart(host.engine)) as holder, closing(Bench(host, "loops")) as loops:
        runner = Runner(LOOP, host)

        def make_passes() -> None:
            """Until the batch has waited for the member for long; one pass does not wait for a batch."""
            runner.run_once(loops.connection)
            while locked == "jobs" and not loops.rows(IN_TROUBLE):
                runner.run_once(loops.connection)

        with holder.transaction():
            row = member if locked == "jobs" else batch["id"]
            holder.execute(f"SELECT 1 FROM opsjobs.{locked} WHERE id = %s FOR UPDATE", [row])
            with ThreadPoolExecutor(1) as pool:
                passes = pool.submit(make_passes)
                if locked == "jobs":
                    wait_until(lambda: bench.rows(WAITING), what="the fold to wait for the member")
                _, late = record(others)
                passes.result(30)
            assert late < 1
            assert state_of(bench) == "running"
        record([member])

        def is_ended() -> bool:
            runner.run_once(loops.connection)
            return state_of(bench) == "canceled"

        wait_until(is_ended)
    found = batch_of(bench, batch["id"])
    assert found["trouble"] is None
    assert found["ends"] == {"finished returned": MEMBERS}


WAITING = """
    SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
IN_TROUBLE = "SELECT 1 FROM opsjobs.batches WHERE starts_with(trouble, 'LockNotAvailable')"


def state_of(bench: Bench) -> str:
    state: str = bench.row("SELECT state FROM opsjobs.batches")["state"]
    return state
