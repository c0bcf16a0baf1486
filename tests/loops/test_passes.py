"""One pass of each loop, and what surrounds it: the lock, the note, the error that ends with its pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue

from flask_opsjobs import signals
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.redis.broker import Broker, broker_of, rq_id
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.lifeline import loop_runs
from flask_opsjobs.loops import LOOPS, Loop, Pass
from flask_opsjobs.loops.loop import IDLE, Runner, every
from tests.conftest import MakeBench
from tests.loops.conftest import StartJob
from tests.support.dispatching import TwoRedis
from tests.support.engine import Bench, race

pytestmark = pytest.mark.lane

RecordJob = Callable[..., int]
# These ask Redis only after their commits, as a host's request does, or not at all.
NO_REDIS = ("cron", "operate", "escalate")
BY_NAME = {loop.name: loop for loop in LOOPS}


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


def runner(bench: Bench, loop: str | Loop, process: str = "one") -> Runner:
    return Runner(BY_NAME[loop] if isinstance(loop, str) else loop, bench.host, process)


def runs(bench: Bench) -> list[dict[str, Any]]:
    return bench.rows("SELECT * FROM opsjobs.loop_runs ORDER BY id")


def a_loop(run: Callable[[Pass], str], *, is_alone: bool = True, seconds: float = 10) -> Loop:
    return Loop("test", every(seconds), run, is_alone)


class TestEveryLoop:
    @pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
    def test_a_pass_with_nothing_to_do_says_so(self, bench: Bench, loop: Loop) -> None:
        assert runner(bench, loop).run_once(bench.connection) is False
        (run,) = runs(bench)
        assert (run["loop"], run["process"], run["report"], run["error"]) == (
            loop.name,
            "one",
            IDLE,
            None,
        )
        assert run["every_seconds"] == loop.every_seconds(bench.host.settings)

    @pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
    def test_it_holds_no_lock_and_no_transaction_afterwards(self, bench: Bench, loop: Loop) -> None:
        runner(bench, loop).run_once(bench.connection)
        assert bench.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        # Of this database: sessions of another one on this server may hold theirs.
        locks = """
            SELECT pid, objid, query FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND datname = current_database()
            """
        assert bench.rows(locks) == []

    @pytest.mark.parametrize(
        "loop",
        # Those that ask Redis in their passes.
        [loop for loop in LOOPS if not loop.is_alone and loop.name not in NO_REDIS],
        ids=lambda loop: loop.name,
    )
    def test_redis_being_away_is_an_error_of_the_pass_only(
        self,
        bench: Bench,
        make_app: Any,
        opsjobs: Any,
        note: Any,
        own_valkey: Any,
        record_job: RecordJob,
        loop: Loop,
    ) -> None:
        record_job()
        record_job(delay=0.0001)
        own_valkey.kill()
        app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
        lonely = Runner(loop, app.extensions["opsjobs"], "one")
        now = read_clock(bench.connection) + timedelta(seconds=30)
        for _ in range(2):
            assert lonely.run_once(bench.connection, now) is False
        (run,) = runs(bench)
        if run["error"] is None:
            # The second pass has nothing left to stage. There is no workflow and no batch.
            assert loop.name in ("stage", "advance", "fold")
        else:
            assert "Redis does not answer" in run["error"]
        states = {row["state"] for row in bench.rows("SELECT state FROM opsjobs.jobs")}
        assert "queued" not in states
        own_valkey.start()
        lonely.run_once(bench.connection, now)
        assert runs(bench)[-1]["error"] is None

    @pytest.mark.sessions
    @pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
    def test_a_read_only_session_is_no_error_of_the_loop(
        self, bench: Bench, loop: Loop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After a failover. Whoever runs the loop drops the session, and says it once for all loops."""
        bench.connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            runner(bench, loop).run_once(bench.connection)
        assert caplog.records == []
        bench.connection.execute("SET default_transaction_read_only = off")
        assert runs(bench) == []


class TestWhatTheyDo:
    def test_dispatch(self, bench: Bench, record_job: RecordJob) -> None:
        record_job()
        runner(bench, "dispatch").run_once(bench.connection)
        assert runs(bench)[0]["report"] == "dispatched 1 job"

    def test_dispatch_goes_on_for_one_redis_while_another_is_away(
        self,
        bench: Bench,
        record_job: RecordJob,
        make_app: Any,
        opsjobs: Any,
        note: Any,
        own_valkey: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        away = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
        bench.host.broker = Broker(
            TwoRedis(broker_of(bench.host), broker_of(away.extensions["opsjobs"]))
        )
        passes, there = runner(bench, "dispatch"), record_job(queue="elsewhere")
        own_valkey.kill()
        for _ in range(3):
            here = record_job()
            passes.run_once(bench.connection)
            assert bench.job(here)["state"] == "queued"
            assert "Redis does not answer" in runs(bench)[-1]["error"]
            bench.claim(here)
        left = bench.job(there)
        assert (left["state"], left["dispatch_no"]) == ("available", 1), "it was tried once"
        own_valkey.start()
        passes.run_once(bench.connection)
        assert (bench.job(there)["state"], runs(bench)[-1]["error"]) == ("queued", None)
        said = [record.getMessage() for record in caplog.records]
        assert [line.partition(" (")[0] for line in said if "loop dispatch" in line] == [
            "loop dispatch: EngineUnavailable: Redis does not answer",
            "loop dispatch recovered",
        ]

    def test_stage_moves_what_is_due_and_hands_it_out(
        self, bench: Bench, record_job: RecordJob, now: datetime, redis_client: Redis
    ) -> None:
        due, later = record_job(delay=5), record_job(delay=60)
        runner(bench, "stage").run_once(bench.connection, now)
        assert bench.job(due)["state"] == "scheduled"
        runner(bench, "stage").run_once(bench.connection, now + timedelta(seconds=20))
        assert bench.job(due)["state"] == "queued"
        assert bench.job(later)["state"] == "scheduled"
        assert redis_client.lrange(Queue(connection=redis_client).key, 0, -1) == [
            rq_id(due, 1).encode()
        ]
        assert runs(bench)[-1]["report"] == "1 job became due"

    def test_stage_takes_a_batch_and_asks_for_more(
        self, bench: Bench, record_job: RecordJob, now: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flask_opsjobs.loops import stage as module

        monkeypatch.setattr(module, "STAGE_BATCH", 2)
        monkeypatch.setattr(module, "stage", lambda c, n: _stage(c, n, 2))
        for _ in range(3):
            record_job(delay=1)
        passes = runner(bench, "stage")
        later = now + timedelta(seconds=10)
        assert passes.run_once(bench.connection, later) is True
        assert passes.run_once(bench.connection, later) is False

    def test_expire(self, bench: Bench, record_job: RecordJob, now: datetime) -> None:
        job_id = record_job(deadline=timedelta(seconds=5))
        runner(bench, "expire").run_once(bench.connection, now + timedelta(seconds=60))
        job = bench.job(job_id)
        assert (job["state"], job["ended_by"]) == ("failed", "deadline")

    def test_watch_rescues_removes_deliveries_and_sends_its_signal_after_commit(
        self, make_bench: MakeBench, start_job: StartJob, redis_client: Redis
    ) -> None:
        bench, other = make_bench(), make_bench()
        job_id = start_job(bench)
        heard: list[tuple[str, str]] = []

        def hear(sender: Any, worker: str) -> None:
            heard.append((worker, other.job(job_id)["state"]))

        passes = runner(bench, "watch")
        now = read_clock(bench.connection)
        with signals.worker_missing.connected_to(hear):
            for number in range(15):
                passes.run_once(bench.connection, now + timedelta(seconds=10 * number))
        # Seen from another connection, so it was committed.
        assert (bench.name, "available") in heard
        assert not [key for key in redis_client.keys("*") if b"opsjobs-" in key]
        assert runs(bench)[0]["passes"] == 15

    def test_a_receiver_that_raises_changes_nothing(
        self, bench: Bench, start_job: StartJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        job_id = start_job(bench)
        passes = runner(bench, "watch")
        now = read_clock(bench.connection)

        def explode(sender: Any, **facts: Any) -> None:
            raise RuntimeError("a host's receiver")

        with signals.worker_missing.connected_to(explode):
            for number in range(15):
                passes.run_once(bench.connection, now + timedelta(seconds=10 * number))
        assert bench.job(job_id)["state"] == "available"

    def test_two_watch_processes_do_not_see_time_go_by_twice_as_fast(
        self, make_bench: MakeBench
    ) -> None:
        bench, other = make_bench(), make_bench()
        one, two = runner(bench, "watch"), runner(other, "watch", "two")
        now = read_clock(bench.connection)
        for number in range(12):
            one.run_once(bench.connection, now + timedelta(seconds=10 * number))
            two.run_once(other.connection, now + timedelta(seconds=10 * number + 5))
        states = bench.rows("SELECT DISTINCT state FROM opsjobs.workers")
        # 115 seconds by the clock; counted twice, it would have been missing at 60.
        assert states == [{"state": "late"}]

    def test_a_watcher_that_was_away_for_an_hour_starts_from_where_it_was(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        job_id = start_job(bench)
        passes = runner(bench, "watch")
        now = read_clock(bench.connection)
        for hours in range(4):
            passes.run_once(bench.connection, now + timedelta(hours=hours))
        assert bench.job(job_id)["state"] == "started"
        assert len(runs(bench)) == 4

    def test_recall(self, bench: Bench, record_job: RecordJob, redis_client: Redis) -> None:
        job_id = record_job()
        bench.dispatch()
        redis_client.flushall()
        passes = runner(bench, "recall")
        now = read_clock(bench.connection)
        for seconds in (6, 8, 10, 12):
            passes.run_once(bench.connection, now + timedelta(seconds=seconds))
        assert bench.job(job_id)["state"] == "available"
        assert runs(bench)[0]["report"] == "recalled 1 lost delivery"

    def test_recall_reports_what_one_redis_lost_while_another_is_away(
        self,
        bench: Bench,
        record_job: RecordJob,
        make_app: Any,
        opsjobs: Any,
        note: Any,
        own_valkey: Any,
        redis_client: Redis,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Those of the other, which workers take from Postgres meanwhile, are not lost."""
        bench.rows("UPDATE opsjobs.workers SET queues = '{elsewhere}' RETURNING id")
        away = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
        bench.host.broker = Broker(
            TwoRedis(broker_of(bench.host), broker_of(away.extensions["opsjobs"]))
        )
        there, here = record_job(queue="elsewhere"), record_job()
        bench.dispatch("elsewhere")
        bench.dispatch()
        redis_client.flushall()
        own_valkey.kill()
        passes, now = runner(bench, "recall"), read_clock(bench.connection)
        for seconds in (6, 8, 10, 12):
            passes.run_once(bench.connection, now + timedelta(seconds=seconds))
        assert [bench.job(job_id)["state"] for job_id in (there, here)] == ["available"] * 2
        assert "Redis does not answer" in runs(bench)[-1]["error"]
        found = {row["class"]: row for row in bench.rows("SELECT * FROM opsjobs.incidents")}
        assert sorted(found) == ["delivery_lost", "redis_away"]
        assert found["delivery_lost"]["affected"] == 1
        # Its name does not change with the queues that are on it.
        address = own_valkey.url.removeprefix("redis://")
        assert found["redis_away"]["subject"] == f"redis/{address}"
        said = {record.getMessage() for record in caplog.records}
        assert f"recalled jobs {here}: their delivery was lost" in said
        assert f"recalled jobs {there}: Redis does not answer" in said

    def test_recall_removes_orphan_deliveries(
        self, bench: Bench, record_job: RecordJob, redis_client: Redis
    ) -> None:
        record_job()
        bench.dispatch()
        bench.rows("DELETE FROM opsjobs.jobs RETURNING 1")
        passes = runner(bench, "recall")
        for _ in range(2):
            passes.run_once(bench.connection)
        assert runs(bench)[0]["report"] == "removed 1 orphan delivery"
        assert not [key for key in redis_client.keys("*") if b"opsjobs-" in key]

    def test_adopt_and_observe_go_on_after_a_redis_that_fails_in_another_way(
        self, bench: Bench, make_app: Any, opsjobs: Any, note: Any, own_valkey: Any
    ) -> None:
        """The address of the first is none: Python cannot encode it, so no error of Redis comes of it."""
        urls = {"broken": "redis://mail..example:6379/0", "well": own_valkey.url}
        app = make_app(opsjobs=opsjobs, OPSJOBS_RQ_REDIS_URLS=urls)
        with own_valkey.client() as redis:
            Queue("mail", connection=redis).enqueue(print)
        for name in ("adopt", "observe"):
            passes = Runner(BY_NAME[name], app.extensions["opsjobs"], "one")
            passes.run_once(bench.connection)
            assert "label empty" in runs(bench)[-1]["error"], name
        assert bench.row("SELECT rq_place FROM opsjobs.jobs WHERE origin = 'rq'") == {
            "rq_place": "well"
        }
        places = bench.rows("SELECT name FROM opsjobs.rq_places WHERE identity IS NOT NULL")
        assert {row["name"] for row in places} == {"default", "well"}


class TestAround:
    def test_of_two_copies_one_makes_the_pass(self, make_bench: MakeBench) -> None:
        one, two = make_bench(), make_bench()
        made = []

        def run(context: Pass) -> str:
            made.append(runner(two, loop).run_once(two.connection))
            return IDLE

        loop = a_loop(run)
        runner(one, loop).run_once(one.connection)
        assert made == [False]
        assert len(runs(one)) == 1
        # The lock went with the transaction.
        runner(two, a_loop(lambda context: IDLE), "two").run_once(two.connection)
        assert len(runs(one)) == 2

    def test_a_pass_that_raises_is_rolled_back_noted_and_over(
        self, bench: Bench, record_job: RecordJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        job_id = record_job()
        effects: list[str] = []

        def run(context: Pass) -> str:
            context.after_commit(lambda: effects.append("too early"))
            context.connection.execute("UPDATE opsjobs.jobs SET priority = 9")
            raise RuntimeError("on purpose")

        passes = runner(bench, a_loop(run))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert passes.run_once(bench.connection) is False
        assert bench.job(job_id)["priority"] == 5
        assert effects == []
        (row,) = runs(bench)
        assert (row["report"], row["error"], row["passes"]) == (
            "failed",
            "RuntimeError: on purpose",
            3,
        )
        # Three failures, told once.
        assert len([r for r in caplog.records if "on purpose" in r.getMessage()]) == 1
        passes.loop = a_loop(lambda context: "went well")
        passes.run_once(bench.connection)
        (row,) = runs(bench)
        assert (row["report"], row["error"], row["passes"]) == ("went well", None, 4)

    def test_an_error_of_postgres_is_over_too_and_shows_no_row(self, bench: Bench) -> None:
        def run(context: Pass) -> str:
            context.connection.execute(
                "INSERT INTO opsjobs.queues (name, created_at, prefetch) VALUES ('secret', now(), 0)"
            )
            return IDLE

        runner(bench, a_loop(run)).run_once(bench.connection)
        assert runs(bench)[0]["error"].startswith("CheckViolation: ")
        assert "secret" not in runs(bench)[0]["error"]

    @pytest.mark.sessions
    def test_a_broken_connection_raises(self, make_bench: MakeBench) -> None:
        bench, other = make_bench(), make_bench()
        pid = bench.connection.info.backend_pid
        other.rows("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(psycopg.OperationalError):
            runner(bench, "expire").run_once(bench.connection)

    def test_what_an_expected_outage_says_has_no_traceback(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        def run(context: Pass) -> str:
            raise EngineUnavailable("Redis does not answer (TimeoutError)")

        runner(bench, a_loop(run, is_alone=False)).run_once(bench.connection)
        assert [record.exc_info for record in caplog.records] == [None]

    def test_effects_come_after_the_commit_and_one_that_raises_stops_none(
        self, make_bench: MakeBench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench, other = make_bench(), make_bench()
        seen: list[int] = []

        def run(context: Pass) -> str:
            context.after_commit(lambda: print(1 / 0))
            context.after_commit(lambda: seen.append(len(runs(other))))
            return "something"

        runner(bench, a_loop(run)).run_once(bench.connection)
        assert seen == [1]
        assert "an effect after its commit failed" in caplog.text


class TestAwake:
    def test_a_gap_of_three_intervals_begins_a_new_stretch(
        self, bench: Bench, now: datetime
    ) -> None:
        passes = runner(bench, a_loop(lambda context: IDLE, seconds=10))
        for seconds in (0, 10, 39, 69, 79):
            passes.run_once(bench.connection, now + timedelta(seconds=seconds))
        found = runs(bench)
        assert [run["passes"] for run in found] == [3, 2]
        assert found[0]["last_at"] == now + timedelta(seconds=39)
        assert found[1]["started_at"] == now + timedelta(seconds=69)

    def test_a_clock_that_jumps_back_begins_a_new_stretch_and_blinds_nobody(
        self, bench: Bench, now: datetime
    ) -> None:
        elapsed: list[float] = []

        def run(context: Pass) -> str:
            elapsed.append(context.elapsed_seconds)
            return IDLE

        passes = runner(bench, a_loop(run, seconds=10))
        for seconds in (0, 10, -3590, -3580, -3570):
            passes.run_once(bench.connection, now + timedelta(seconds=seconds))
        assert elapsed == [0, 10, 0, 10, 10]
        assert [row["passes"] for row in runs(bench)] == [2, 3]

    def test_a_pass_after_the_time_of_a_look_is_no_silence(
        self, bench: Bench, now: datetime
    ) -> None:
        def note(loop: str, seconds: float) -> None:
            made = loop_runs.Note(loop, "one", 10, 0.1, IDLE)
            loop_runs.note_pass(bench.connection, None, made, now - timedelta(seconds=seconds))

        # Both loops began a second stretch after a gap. One of these passes is newer than the look.
        for loop in ("dispatch", "cron"):
            note(loop, 600)
        note("cron", 2)
        note("dispatch", 0)
        look = {"now": now - timedelta(seconds=1), "grace_seconds": 5, "limit": 9}
        latest = bench.connection.execute(sql.load("list_latest_loop_runs"), look).fetchall()
        assert [row[3] for row in latest] == [now - timedelta(seconds=2), now]
        assert bench.connection.execute(sql.load("detect_silent_loops"), look).fetchall() == []

    def test_each_process_has_its_own_stretch(self, make_bench: MakeBench, now: datetime) -> None:
        one, two = make_bench(), make_bench()
        loop = a_loop(lambda context: IDLE)
        passes = [runner(one, loop), runner(two, loop, "two")]
        for _ in range(3):
            for each in passes:
                each.run_once(one.connection, now)
        assert [(row["process"], row["passes"]) for row in runs(one)] == [("one", 3), ("two", 3)]

    def test_time_since_the_last_pass_is_that_of_any_copy(
        self, bench: Bench, now: datetime
    ) -> None:
        note = loop_runs.Note("watch", "p", 10, 0.1, IDLE)
        assert loop_runs.seconds_since_last_pass(bench.connection, "watch", now) == 0
        loop_runs.note_pass(bench.connection, None, note, now)
        later = now + timedelta(seconds=7)
        assert loop_runs.seconds_since_last_pass(bench.connection, "watch", later) == 7


def test_many_copies_of_every_loop_at_once(
    make_bench: MakeBench, record_job: RecordJob, redis_client: Redis
) -> None:
    benches = [make_bench() for _ in range(3)]
    jobs = [record_job(delay=1) for _ in range(20)]
    now = read_clock(benches[0].connection) + timedelta(seconds=10)

    def all_loops(bench: Bench) -> None:
        for loop in LOOPS:
            runner(bench, loop, bench.name).run_once(bench.connection, now)

    answers = race(*(lambda bench=bench: all_loops(bench) for bench in benches))
    assert answers == [None, None, None]
    assert [row["error"] for row in runs(benches[0]) if row["error"]] == []
    numbers = {benches[0].job(job_id)["dispatch_no"] for job_id in jobs}
    assert numbers <= {0, 1}
    listed = redis_client.lrange(Queue(connection=redis_client).key, 0, -1)
    assert len(listed) == len(set(listed))


def _stage(connection: Any, now: datetime, limit: int) -> Any:
    from flask_opsjobs.engine.dispatch.dispatch import stage

    return stage(connection, now, limit)
