"""The totals that metrics read: each enqueued job, end, slot and decision is added once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.models import MOST_QUEUE_TOTALS
from tests.conftest import MakeBench
from tests.loops.conftest import StartJob
from tests.support.engine import Bench, race

MINUTE = timedelta(minutes=1)


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


def roll(bench: Bench, now: datetime) -> None:
    runner = Runner(roll_up.LOOP, bench.host, "one")
    while runner.run_once(bench.connection, now):
        pass
    assert runner.last_error is None


def totals(bench: Bench) -> dict[str, dict[str, Any]]:
    return {
        row.pop("queue"): row
        for row in bench.rows("SELECT * FROM opsjobs.queue_totals ORDER BY queue")
    }


def end(bench: Bench, start_job: StartJob, at: datetime, kind: str, seconds: float) -> None:
    """A job that waited 3 s and ran so long, and ended at this time."""
    job_id = start_job(bench, max_attempts=1)
    bench.record(job_id, 1, Outcome(kind))
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET ended_at = %(at)s, started_at = %(at)s - %(ran)s,"
        " due_at = %(at)s - %(ran)s - interval '3 s' WHERE id = %(id)s",
        {"at": at, "id": job_id, "ran": timedelta(seconds=seconds)},
    )


def test_what_was_enqueued_and_what_ended_is_added_once(
    make_bench: MakeBench, start_job: StartJob, record_job: Callable[..., int], now: datetime
) -> None:
    benches = [make_bench() for _ in range(3)]
    end(benches[0], start_job, now, "returned", 0.5)
    end(benches[0], start_job, now, "returned", 0.1)
    end(benches[0], start_job, now + 5 * MINUTE, "raised", 0.1)
    record_job(queue="mail")
    later = now + 10 * MINUTE
    assert race(*(lambda each=each: roll(each, later) for each in benches)) == [None] * 3
    roll(benches[0], later)
    found = totals(benches[0])
    assert found["mail"]["enqueued"] == 1
    default = found["default"]
    assert [default[name] for name in ("enqueued", "finished", "failed", "canceled")] == [
        3,
        2,
        1,
        0,
    ]
    # 3 s are from 2,048 to 4,096 ms, 100 ms from 64 to 128, 500 ms from 256 to 512.
    assert default["waits"] == [0] * 12 + [3]
    assert default["runs"] == [0] * 7 + [2, 0, 1]
    assert (default["wait_seconds"], default["run_seconds"]) == pytest.approx((9.0, 0.7))


def test_two_hundred_queues_have_a_row_and_all_others_have_one_together(
    bench: Bench, note: Task, db: SQLAlchemy, now: datetime
) -> None:
    def enqueue(queues: range) -> None:
        for number in queues:
            note.options(queue=f"queue-{number:03}").enqueue(text="")
        db.session.commit()

    enqueue(range(150, 300))
    roll(bench, now)
    first = totals(bench)
    assert len(first) == 150
    enqueue(range(300))
    roll(bench, now)
    roll(bench, now)
    second = totals(bench)
    named = second.keys() - {""}
    assert len(named) == MOST_QUEUE_TOTALS
    assert first.keys() < named, "a queue that has a row keeps it"
    assert second[""]["enqueued"] == 100
    assert sum(row["enqueued"] for row in second.values()) == 450


def test_decisions_are_added_once(
    bench: Bench, opsjobs: OpsJobs, record_job: Callable[..., int], now: datetime
) -> None:
    def found() -> dict[tuple[str, str], int]:
        rows = bench.rows("SELECT action, outcome, decisions FROM opsjobs.action_totals")
        return {(row["action"], row["outcome"]): row["decisions"] for row in rows}

    roll(bench, now)
    for number in range(3):
        opsjobs.operator.cancel(record_job(), actor="ops-demo", reason=f"canceled {number} times")
    opsjobs.operator.pause("default", actor="ops-demo", reason="the bank is away")
    roll(bench, now)
    roll(bench, now)
    assert found() == {("job.cancel", "done"): 3, ("queue.pause", "done"): 1}
    opsjobs.operator.cancel(record_job(), actor="ops-demo", reason="canceled once more")
    roll(bench, now)
    assert found() == {("job.cancel", "done"): 4, ("queue.pause", "done"): 1}


def test_slots_are_added_once_by_their_results(bench: Bench, now: datetime) -> None:
    roll(bench, now)
    row = """
        INSERT INTO opsjobs.cron_slots
            (entry, slot_at, until_at, slots, result, expression, zone, decided_at)
        VALUES (%(entry)s, %(at)s, %(at)s, %(slots)s, %(result)s, '* * * * *', 'UTC', %(at)s)
    """
    decided = (("a", "ran", 1, 0), ("b", "missed", 7, 0), ("c", "ran", 1, 30))
    for entry, result, slots, minutes in decided:
        values = {"entry": entry, "result": result, "slots": slots, "at": now + minutes * MINUTE}
        bench.connection.execute(row, values)
    for minutes in (10, 10, 40, 40):
        roll(bench, now + minutes * MINUTE)
    found = bench.rows("SELECT result, slots FROM opsjobs.slot_totals ORDER BY result")
    assert found == [{"result": "missed", "slots": 7}, {"result": "ran", "slots": 2}]
