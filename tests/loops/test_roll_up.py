"""The roll_up loop: enqueued jobs are counted exactly, minutes once, depths say how they are known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.failure_key import key_of_end
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline import retention
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from tests.conftest import MakeBench
from tests.loops.conftest import StartJob
from tests.support.engine import Bench, race

RecordJob = Callable[..., int]


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


def roll(bench: Bench, now: datetime, runner: Runner | None = None) -> None:
    """Passes as of `now` until there is nothing more to do."""
    runner = runner or Runner(roll_up.LOOP, bench.host, "one")
    while runner.run_once(bench.connection, now):
        pass


def enqueued(bench: Bench) -> dict[str, tuple[int, int]]:
    """Enqueued and deleted by queue: the sums and what is not folded yet."""
    rows = bench.rows(
        "SELECT queue, sum(enqueued)::int AS enqueued, sum(deleted)::int AS deleted FROM ("
        " SELECT queue, enqueued, deleted FROM opsjobs.enqueue_counts"
        " UNION ALL SELECT queue, enqueued, deleted FROM opsjobs.job_count_deltas) b GROUP BY queue"
    )
    return {row["queue"]: (row["enqueued"], row["deleted"]) for row in rows}


class TestEnqueueCounts:
    def test_every_way_of_recording_is_counted(
        self, bench: Bench, note: Task, opsjobs: OpsJobs, db: SQLAlchemy
    ) -> None:
        @opsjobs.task(queue="single", unique=Unique(until="ended"))
        def once(text: str) -> None: ...

        note.enqueue(text="a")
        note.enqueue_many({"text": str(number)} for number in range(7))
        assert once.enqueue(text="a").conflict is False
        assert once.enqueue(text="a").conflict is True
        assert once.enqueue_many([{"text": "a"}, {"text": "b"}, {"text": "b"}]).count == 1
        assert once.enqueue_many([{"text": "a"}]).count == 0
        db.session.commit()
        assert enqueued(bench) == {"default": (8, 0), "single": (2, 0)}

    def test_what_is_rolled_back_was_not_enqueued(
        self, bench: Bench, note: Task, db: SQLAlchemy
    ) -> None:
        note.enqueue(text="kept")
        with db.session.begin_nested() as savepoint:
            note.enqueue_many([{"text": "a"}, {"text": "b"}])
            savepoint.rollback()
        db.session.commit()
        note.enqueue(text="gone")
        db.session.rollback()
        assert enqueued(bench) == {"default": (1, 0)}

    def test_two_transactions_of_a_host_do_not_wait_for_each_other(
        self, bench: Bench, note: Task, db: SQLAlchemy
    ) -> None:
        with Session(bench.host.engine) as one, Session(bench.host.engine) as two:
            note.options(session=one).enqueue(text="a")
            note.options(session=two).enqueue(text="b")  # would wait for ever if they did
            two.commit()
            assert enqueued(bench) == {"default": (1, 0)}
            one.commit()
        assert enqueued(bench) == {"default": (2, 0)}

    def test_removal_is_counted(
        self, bench: Bench, start_job: StartJob, record_job: RecordJob, now: datetime
    ) -> None:
        bench.record(start_job(bench), 1, Outcome("returned"))
        record_job()
        later = now + timedelta(days=100)
        assert retention.retain(bench.connection, bench.host.settings, later)["finished jobs"] == 1
        assert enqueued(bench) == {"default": (2, 1)}

    def test_an_operators_run_again_counts_as_enqueued_and_a_delete_as_deleted(
        self, bench: Bench, start_job: StartJob, opsjobs: OpsJobs
    ) -> None:
        job_id = start_job(bench)
        bench.record(job_id, 1, Outcome("returned"))
        opsjobs.operator.run_again(
            [job_id], actor="ops-demo", reason="the integrity check is watched"
        )
        assert enqueued(bench) == {"default": (2, 0)}
        opsjobs.operator.delete([job_id], actor="ops-demo", reason="the integrity check is watched")
        assert enqueued(bench) == {"default": (2, 1)}

    @pytest.mark.slow
    def test_counter_rows_are_folded_and_the_sums_stay(
        self, bench: Bench, record_job: RecordJob, now: datetime
    ) -> None:
        for _ in range(3):
            record_job()
        record_job(queue="mail")
        before = enqueued(bench)
        roll(bench, now)
        assert bench.rows("SELECT * FROM opsjobs.job_count_deltas") == []
        assert enqueued(bench) == before == {"default": (3, 0), "mail": (1, 0)}
        roll(bench, now + timedelta(days=3))
        record_job()
        roll(bench, now + timedelta(days=6))
        rows = bench.rows(
            "SELECT extract(epoch FROM minute)::int AS at, queue, enqueued FROM opsjobs.enqueue_counts"
        )
        assert sorted((row["at"], row["queue"], row["enqueued"]) for row in rows) == [
            (0, "default", 4),
            (0, "mail", 1),
        ]

    def test_a_transaction_that_commits_late_is_counted_late(
        self, bench: Bench, note: Task, db: SQLAlchemy, now: datetime
    ) -> None:
        with Session(bench.host.engine) as session:
            note.options(session=session).enqueue(text="slow")
            roll(bench, now + timedelta(minutes=30))
            assert enqueued(bench) == {}
            session.commit()
        roll(bench, now + timedelta(minutes=31))
        assert bench.rows("SELECT * FROM opsjobs.job_count_deltas") == []
        assert enqueued(bench) == {"default": (1, 0)}

    def test_recording_folding_and_removing_at_once_lose_no_count(
        self, app: Flask, make_bench: MakeBench, note: Task, now: datetime
    ) -> None:
        benches = [make_bench() for _ in range(4)]
        with app.app_context(), Session(benches[0].host.engine) as session:
            note.options(session=session).enqueue_many({"text": ""} for _ in range(40))
            session.commit()
        # Ended directly: forty executions would tell no more.
        benches[0].connection.execute(
            "UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned'"
        )

        def record() -> None:
            with app.app_context(), Session(benches[0].host.engine) as session:
                for number in range(30):
                    note.options(session=session).enqueue(text=str(number))
                    session.commit() if number % 3 else session.rollback()

        def fold(bench: Bench) -> None:
            for _ in range(30):
                roll(bench, now)

        def remove(bench: Bench) -> None:
            later = now + timedelta(days=100)
            while sum(retention.retain(bench.connection, bench.host.settings, later, 2).values()):
                pass

        answers = race(
            record,
            record,
            lambda: fold(benches[0]),
            lambda: fold(benches[1]),
            lambda: remove(benches[2]),
        )
        assert answers == [None] * 5
        roll(benches[0], now)
        assert enqueued(benches[0]) == {"default": (80, 40)}


class TestMinutes:
    def end(
        self, bench: Bench, record_job: RecordJob, at: datetime, kind: str, **options: Any
    ) -> int:
        """A job that ended at `at` by the real arrow, having waited 3 s and run 100 ms;
        then its times are moved.
        """
        job_id = record_job(max_attempts=1, **options)
        bench.dispatch(options.get("queue", "default"), prefetch=1000)
        bench.claim(job_id)
        bench.record(job_id, 1, Outcome(kind))
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET due_at = %(at)s - interval '3.1 s',"
            " started_at = %(at)s - interval '100 ms', ended_at = %(at)s WHERE id = %(id)s",
            {"at": at, "id": job_id},
        )
        return job_id

    def test_ends_are_counted_once_a_minute_is_over_for_a_minute(
        self, bench: Bench, record_job: RecordJob, now: datetime
    ) -> None:
        minute = now.replace(second=0, microsecond=0)
        self.end(bench, record_job, minute, "returned")
        self.end(bench, record_job, minute + timedelta(seconds=59.9), "raised", queue="mail")
        self.end(bench, record_job, minute + timedelta(seconds=60), "canceled")
        roll(bench, minute + timedelta(seconds=119))
        assert bench.rows("SELECT * FROM opsjobs.rollups") == []
        roll(bench, minute + timedelta(seconds=120))
        rows = bench.rows(
            "SELECT queue, finished, failed, canceled, waits, runs FROM opsjobs.rollups"
            " WHERE minute = %s ORDER BY queue",
            minute,
        )
        # 3 s lie from 2,048 to 4,096 ms, 100 ms from 64 to 128.
        wait, run = [0] * 12, [0] * 7
        assert [tuple(row.values()) for row in rows] == [
            ("", 1, 1, 0, [*wait, 2], [*run, 2]),
            ("default", 1, 0, 0, [*wait, 1], [*run, 1]),
            ("mail", 0, 1, 0, [*wait, 1], [*run, 1]),
        ]
        roll(bench, minute + timedelta(seconds=180))
        (row,) = bench.rows(
            "SELECT * FROM opsjobs.rollups WHERE queue = '' AND minute > %s", minute
        )
        # It was canceled by its function: no run time is shown for it.
        assert (row["canceled"], row["runs"]) == (1, [])

    def test_a_loop_that_slept_catches_up(
        self, bench: Bench, record_job: RecordJob, now: datetime
    ) -> None:
        roll(bench, now)
        minute = now.replace(second=0, microsecond=0)
        for hours in (1, 5, 9):
            self.end(bench, record_job, minute + timedelta(hours=hours), "returned")
        runner = Runner(roll_up.LOOP, bench.host, "one")
        # Bounded: a pass takes a quarter of an hour, and says that there is more.
        assert runner.run_once(bench.connection, now + timedelta(hours=10)) is True
        (position,) = bench.rows("SELECT * FROM opsjobs.rollup_position")
        assert position["counted_until"] == minute + timedelta(minutes=14)
        roll(bench, now + timedelta(hours=10))
        (sums,) = bench.rows(
            "SELECT count(*)::int AS minutes, sum(finished)::int AS finished"
            " FROM opsjobs.rollups WHERE queue = ''"
        )
        assert sums == {"minutes": 3, "finished": 3}
        (position,) = bench.rows("SELECT * FROM opsjobs.rollup_position")
        assert position["counted_until"] == minute + timedelta(hours=10) - timedelta(minutes=1)

    def test_any_number_of_loops_count_each_minute_once(
        self, make_bench: MakeBench, record_job: RecordJob, now: datetime
    ) -> None:
        benches = [make_bench() for _ in range(3)]
        minute = now.replace(second=0, microsecond=0)
        for number in range(6):
            self.end(benches[0], record_job, minute + timedelta(minutes=number * 10), "returned")
        later = now + timedelta(hours=2)
        answers = race(*(lambda bench=bench: roll(bench, later) for bench in benches))
        assert answers == [None] * 3
        roll(benches[0], later)
        rows = benches[0].rows("SELECT finished FROM opsjobs.rollups WHERE queue = ''")
        assert [row["finished"] for row in rows] == [1] * 6

    def test_a_clock_that_is_stepped_back_counts_nothing_twice(
        self, bench: Bench, record_job: RecordJob, now: datetime
    ) -> None:
        minute = now.replace(second=0, microsecond=0)
        self.end(bench, record_job, minute, "returned")
        roll(bench, now + timedelta(minutes=5))
        (before,) = bench.rows("SELECT * FROM opsjobs.rollup_position")
        roll(bench, now - timedelta(minutes=5))
        assert bench.rows("SELECT * FROM opsjobs.rollup_position") == [before]


class TestDepths:
    def depths(self, bench: Bench) -> list[tuple[Any, ...]]:
        rows = bench.rows(
            "SELECT queue, waiting, due, started, is_capped FROM opsjobs.depths ORDER BY minute, queue"
        )
        return [tuple(row.values()) for row in rows]

    def test_live_jobs_are_sampled_once_a_minute(
        self, bench: Bench, start_job: StartJob, record_job: RecordJob, now: datetime
    ) -> None:
        minute = now.replace(second=0, microsecond=0)
        record_job(delay=60)
        record_job(queue="mail")
        start_job(bench)
        roll(bench, minute)
        seen = [("default", 1, 0, 1, False), ("mail", 0, 1, 0, False)]
        assert self.depths(bench) == seen
        record_job(queue="mail")
        roll(bench, minute + timedelta(seconds=59))
        assert self.depths(bench) == seen
        roll(bench, minute + timedelta(seconds=60))
        assert self.depths(bench) == [*seen, ("default", 1, 0, 1, False), ("mail", 0, 2, 0, False)]

    def test_a_big_backlog_is_a_lower_bound(
        self,
        bench: Bench,
        note: Task,
        db: SQLAlchemy,
        now: datetime,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(roll_up, "_DEPTH_CAP", 50)
        note.enqueue_many({"text": ""} for _ in range(60))
        db.session.commit()
        roll(bench, now)
        assert self.depths(bench) == [("default", 0, 50, 0, True)]


def test_numbers_are_kept_for_thirty_days(bench: Bench, start_job: StartJob, now: datetime) -> None:
    bench.record(start_job(bench), 1, Outcome("returned"))
    roll(bench, now + timedelta(minutes=3))
    removed = retention.retain(bench.connection, bench.host.settings, now + timedelta(days=29))
    assert (removed["rollups"], removed["depths"]) == (0, 0)
    removed = retention.retain(bench.connection, bench.host.settings, now + timedelta(days=31))
    assert (removed["rollups"], removed["depths"]) == (2, 1)


def test_ends_are_counted_by_task_and_quarter(
    bench: Bench, start_job: StartJob, now: datetime
) -> None:
    quarter = now.replace(minute=15, second=0, microsecond=0) - timedelta(hours=1)
    for minutes, kind in ((0, "returned"), (14, "raised"), (15, "returned"), (16, "canceled")):
        job_id = start_job(bench, max_attempts=1)
        bench.record(job_id, 1, Outcome(kind))
        bench.rows(
            "UPDATE opsjobs.jobs SET ended_at = %s WHERE id = %s RETURNING 1",
            quarter + timedelta(minutes=minutes, seconds=1),
            job_id,
        )
    roll(bench, now)
    roll(bench, now)
    ends = bench.rows("SELECT * FROM opsjobs.task_ends ORDER BY quarter")
    assert [(row["quarter"], row["finished"], row["failed"]) for row in ends] == [
        (quarter, 1, 1),
        (quarter + timedelta(minutes=15), 1, 0),
    ]


def test_failed_attempts_are_counted_with_the_minutes(
    bench: Bench, start_job: StartJob, now: datetime
) -> None:
    job_id = start_job(bench, max_attempts=1)
    failed = Outcome("raised", "ValueError: no", failure_key=key_of_end("note", "raised", None))
    bench.record(job_id, 1, failed)
    roll(bench, now)
    assert [row["number"] for row in bench.rows("SELECT number FROM opsjobs.failures")] == [1]
