"""A batch that cannot be folded: a worker's ends and heartbeats go on, it says so, and it heals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import pytest

from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.engine.worker import recorder
from flask_opsjobs.host import Host
from flask_opsjobs.loops.fold import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.batches.conftest import batch_of
from tests.support.engine import Bench
from tests.support.recording import Record, note_turns, recording, turns_of
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
    """Ends jobs through a real recorder, in whose every turn a heartbeat is due."""
    with recording(bench, 0) as record:
        yield record


def make_members(bench: Bench, batches: int, members: int) -> list[int]:
    """Closed batches whose members run; returns the jobs."""
    values = {"batches": batches, "members": members}
    return [id for (id,) in bench.connection.execute(MAKE, values)]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 100])
def test_batches_that_cannot_be_folded_are_tried_once_with_a_heartbeat_between_any_two(
    bench: Bench,
    host: Host,
    record: Record,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    batches: int,
) -> None:
    """As those that can be; a line is logged for each, and once they are mended they heal."""
    monkeypatch.setattr(recorder, "TURN_SECONDS", 0)
    note_turns(bench)
    for is_well in (True, False):
        jobs = make_members(bench, batches, MEMBERS // batches)
        if not is_well:
            bench.connection.execute(BREAK)
        record(jobs)
        wait_until(lambda: not bench.rows(OPEN), what="the batches to end, or to say trouble")
        kinds = [kind for kind, _ in turns_of(bench)]
        assert kinds.count("tried") == batches
        assert ("tried", "tried") not in pairwise(kinds)
    bench.connection.execute(MEND)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert sum("cannot be folded, and is tried again: Raise" in line for line in said) == batches
    runner = Runner(LOOP, host)

    def are_ended() -> bool:
        runner.run_once(bench.connection)
        return not bench.rows("SELECT 1 FROM opsjobs.batches WHERE state <> 'finished'")

    wait_until(are_ended, 30)
    assert bench.rows("SELECT 1 FROM opsjobs.batches WHERE trouble IS NOT NULL") == []
    assert check_batches(bench.connection) == []


@pytest.mark.parametrize("locked", ["jobs", "batches"])
def test_a_member_or_a_batch_that_is_locked_for_long_holds_up_neither_ends_nor_heartbeats(
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
                    words = "the fold to wait for the member, 0.1 s each time"
                    wait_until(lambda: bench.rows(WAITING), what=words, every=0.01)
                record(others)
                beats = beats_of(bench)
                wait_until(lambda: beats_of(bench) > beats, what="a heartbeat after the ends")
                passes.result(30)
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


def beats_of(bench: Bench) -> int:
    row = bench.row("SELECT heartbeat_no FROM opsjobs.workers WHERE id = %s", bench.worker_id)
    beats: int = row["heartbeat_no"]
    return beats


def state_of(bench: Bench) -> str:
    state: str = bench.row("SELECT state FROM opsjobs.batches")["state"]
    return state
