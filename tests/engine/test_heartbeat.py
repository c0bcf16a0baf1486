"""What a worker's heartbeat says of the jobs that it runs:
those that it lost while it was silent shall stop.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from flask_opsjobs import endings
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.outage import Outage
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.worker.heartbeat import CANCELED, LOST, Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]


def beat(heartbeat: Heartbeat, bench: Bench) -> list[str]:
    """One heartbeat; a word for each time that the main thread was woken."""
    woken: list[str] = []
    heartbeat.beat_now()
    heartbeat.beat_if_due(bench.connection, lambda: woken.append("woken"))
    return woken


def start(heartbeat: Heartbeat, bench: Bench, job_id: int, number: int = 1) -> None:
    heartbeat.reserve([(job_id, number)])
    assert isinstance(bench.claim(job_id, number), Claimed)
    heartbeat.run((job_id, number))


def stop_wanted(heartbeat: Heartbeat, job_id: int, number: int = 1) -> str | None:
    return heartbeat.stops_wanted().get((job_id, number))


def test_a_job_that_was_rescued_shall_stop(bench: Bench, record_job: RecordJob) -> None:
    heartbeat = Heartbeat(bench.worker_id, 10)
    job_id = record_job()
    bench.dispatch()
    start(heartbeat, bench, job_id)
    assert beat(heartbeat, bench) == []
    assert stop_wanted(heartbeat, job_id) is None
    now = read_clock(bench.connection)
    endings.rescue(bench.connection, [bench.worker_id], now, "vanished")
    assert beat(heartbeat, bench) == ["woken"]
    assert stop_wanted(heartbeat, job_id) == LOST
    # It is dispatched again, to this very worker: another delivery, which goes on.
    bench.dispatch()
    start(heartbeat, bench, job_id, 2)
    assert beat(heartbeat, bench) == ["woken"], "again, should it not have heeded"
    assert (stop_wanted(heartbeat, job_id), stop_wanted(heartbeat, job_id, 2)) == (LOST, None)
    heartbeat.release([(job_id, 1)])
    assert stop_wanted(heartbeat, job_id) is None


def wish_to_cancel(bench: Bench) -> None:
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET cancel_requested_at = clock_timestamp(),"
        " cancel_requested_by = 'anna', cancel_reason = 'it is wrong'"
    )


def test_a_job_that_somebody_cancels_is_not_lost(bench: Bench, record_job: RecordJob) -> None:
    heartbeat = Heartbeat(bench.worker_id, 10)
    job_id = record_job()
    bench.dispatch()
    start(heartbeat, bench, job_id)
    wish_to_cancel(bench)
    beat(heartbeat, bench)
    assert stop_wanted(heartbeat, job_id) == CANCELED


def test_a_wish_that_is_announced_is_read_without_a_heartbeat(
    bench: Bench, record_job: RecordJob, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it can be read it stays announced. The log says how long the end took."""
    heartbeat, woken = Heartbeat(bench.worker_id, 10), list[str]()
    job_id = record_job()
    bench.dispatch()
    start(heartbeat, bench, job_id)
    wish_to_cancel(bench)

    def look(connection: Connection) -> None:
        heartbeat.look_for_stops(connection, lambda: woken.append("woken"))

    look(bench.connection)
    assert stop_wanted(heartbeat, job_id) is None, "it was not announced"
    heartbeat.is_stop_announced = True
    gone = connect_apart(bench.host.engine)
    gone.close()
    with pytest.raises(psycopg.OperationalError):
        look(gone)
    beats = bench.row("SELECT heartbeat_no FROM opsjobs.workers")
    look(bench.connection)
    look(bench.connection)
    assert (stop_wanted(heartbeat, job_id), woken) == (CANCELED, ["woken"])
    assert bench.row("SELECT heartbeat_no FROM opsjobs.workers") == beats
    with caplog.at_level("INFO", "flask_opsjobs.worker"):
        heartbeat.release([(job_id, 1)])
    assert f"job {job_id}: its end was recorded 0.0" in caplog.text
    assert stop_wanted(heartbeat, job_id) is None


def test_a_wish_for_a_job_that_is_just_being_reserved_is_seen_at_once(
    bench: Bench, record_job: RecordJob
) -> None:
    """It was taken, and its worker has not noted it yet: the next heartbeat is due now."""
    heartbeat = Heartbeat(bench.worker_id, 10)
    job_id = record_job()
    bench.dispatch()
    assert isinstance(bench.claim(job_id, 1), Claimed)
    wish_to_cancel(bench)
    heartbeat.is_stop_announced = True
    heartbeat.look_for_stops(bench.connection, lambda: None)
    assert heartbeat.due_in() <= 0
    heartbeat.reserve([(job_id, 1)])
    heartbeat.beat_if_due(bench.connection, lambda: None)
    assert stop_wanted(heartbeat, job_id) == CANCELED


def test_a_delivery_that_is_not_claimed_yet_is_not_lost(bench: Bench) -> None:
    heartbeat = Heartbeat(bench.worker_id, 10)
    heartbeat.reserve([(4711, 1)])
    assert beat(heartbeat, bench) == []
    assert stop_wanted(heartbeat, 4711) is None


def test_heartbeats_that_race_claims_and_ends_find_nothing_lost(
    bench: Bench, record_job: RecordJob
) -> None:
    """The main thread claims while the recorder, one thread, writes outcomes and heartbeats."""
    heartbeat = Heartbeat(bench.worker_id, 0)
    jobs = [record_job() for _ in range(40)]
    bench.dispatch(prefetch=1000)
    ended: list[int] = []
    woken: list[str] = []
    claimed: list[int] = []
    is_over = threading.Event()

    def record_and_send_heartbeat() -> None:
        with connect_apart(bench.host.engine) as connection:
            while len(ended) < len(jobs) and not is_over.is_set():
                for job_id in claimed[len(ended) :]:
                    ending = endings.EndedAttempt(
                        job_id, 1, bench.worker_id, bench.name, Outcome(kind="returned")
                    )
                    endings.write_outcomes(connection, [ending], read_clock(connection))
                    heartbeat.release([(job_id, 1)])
                    ended.append(job_id)
                    heartbeat.beat_if_due(connection, lambda: woken.append("woken"))
                heartbeat.beat_if_due(connection, lambda: woken.append("woken"))

    recorder = threading.Thread(target=record_and_send_heartbeat)
    recorder.start()
    try:
        for job_id in jobs:
            start(heartbeat, bench, job_id)
            claimed.append(job_id)
    finally:
        if len(claimed) < len(jobs):
            is_over.set()
        recorder.join(60)
    assert (ended, woken) == (jobs, [])


@pytest.fixture
def stops() -> Iterator[list[int]]:
    """How often this process was asked to stop."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_a_worker_whose_row_was_removed_is_asked_to_stop(bench: Bench, stops: list[int]) -> None:
    """Nobody would rescue its jobs, so it must register anew."""
    bench.rows("DELETE FROM opsjobs.workers WHERE id = %s RETURNING id", bench.worker_id)
    heartbeat = Heartbeat(bench.worker_id, 0.01)
    recorder = Recorder(bench.host, heartbeat, Outage(logging.getLogger(), ""), lambda: None)
    recorder.start()
    wait_until(lambda: stops == [signal.SIGTERM], what="the signal")
    assert recorder.stop(20)


@pytest.mark.slow
@pytest.mark.parametrize("is_missing", [True, False])
def test_heartbeats_go_on_while_outcomes_cannot_be_written(
    bench: Bench,
    record_job: RecordJob,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_missing: bool,
) -> None:
    """The error is about one step alone: its table is gone, or the file of its statement cannot be read."""
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    heartbeat = Heartbeat(bench.worker_id, 0.01)
    heartbeat.reserve([(job_id, 1)])
    recorder = Recorder(
        bench.host, heartbeat, Outage(logging.getLogger(), "it waits"), lambda: None
    )

    def beats() -> int:
        number: int = bench.row("SELECT heartbeat_no FROM opsjobs.workers")["heartbeat_no"]
        return number

    with monkeypatch.context() as patch:
        if is_missing:
            bench.connection.execute("ALTER TABLE opsjobs.attempts RENAME TO attempts_of_before")
        else:
            patch.setattr("flask_opsjobs.endings.write_outcomes", _cannot_be_read)
            patch.setattr("flask_opsjobs.endings.finish", _cannot_be_read)
        try:
            outcome = Outcome(kind="returned")
            recorder.collect(EndedAttempt(job_id, 1, bench.worker_id, bench.name, outcome))
            recorder.submit()
            recorder.start()
            missing = "the tables of opsjobs are missing"
            says = missing if is_missing else "the recorder failed and tries again"
            wait_until(lambda: says in caplog.text, what="the failure")
            before = beats()
            wait_until(lambda: beats() >= before + 3, what="heartbeats")
        finally:
            if is_missing:
                bench.connection.execute(
                    "ALTER TABLE opsjobs.attempts_of_before RENAME TO attempts"
                )
    wait_until(lambda: bench.job(job_id)["state"] == "finished", what="the outcome")
    assert caplog.text.count(says) == 1
    assert recorder.stop(20)


def _cannot_be_read(*_: object, **__: object) -> None:
    raise OSError("too many open files")


def test_another_error_of_the_recorder_does_not_stop_the_worker(
    bench: Bench, stops: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A KeyError says nothing of the worker's row, though it is a LookupError too."""

    def break_once(_number: int) -> None:
        if "the recorder failed" not in caplog.text:
            raise KeyError("lane")

    heartbeat = Heartbeat(bench.worker_id, 60)
    recorder = Recorder(
        bench.host, heartbeat, Outage(logging.getLogger(), ""), lambda: None, break_once
    )
    recorder.start()
    outcome = Outcome(kind="returned")
    recorder.collect(EndedAttempt(1, 1, bench.worker_id, bench.name, outcome))
    recorder.submit()
    wait_until(
        lambda: stops or "the recorder failed and tries again" in caplog.text, what="the failure"
    )
    assert recorder.stop(20)
    assert stops == []
