"""What a worker's beat says of the jobs that it runs: those that it lost while it was silent shall stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flask_opsjobs import endings
from flask_opsjobs.db import connect_apart
from flask_opsjobs.engine.dispatch import read_clock
from flask_opsjobs.engine.pulse import CANCELED, LOST, Pulse
from flask_opsjobs.jobs.claimed import Claimed
from flask_opsjobs.jobs.outcomes import Outcome
from tests.support.engine import Bench

RecordJob = Callable[..., int]


def beat(pulse: Pulse, bench: Bench) -> list[str]:
    """One beat; a word for each time that the main thread was woken."""
    woken: list[str] = []
    pulse.hurry()
    pulse.beat_if_due(bench.connection, lambda: woken.append("woken"))
    return woken


def start(pulse: Pulse, bench: Bench, job_id: int, number: int = 1) -> None:
    pulse.hold(job_id, number)
    assert isinstance(bench.claim(job_id, number), Claimed)
    pulse.own(job_id, number)


def test_a_job_that_was_put_back_shall_stop(bench: Bench, record_job: RecordJob) -> None:
    pulse = Pulse(bench.worker_id, 10)
    job_id = record_job()
    bench.dispatch()
    start(pulse, bench, job_id)
    assert beat(pulse, bench) == []
    assert pulse.stop_wanted(job_id, 1) is None
    now = read_clock(bench.connection)
    endings.rescue(bench.connection, [bench.worker_id], now, "vanished")
    assert beat(pulse, bench) == ["woken"]
    assert pulse.stop_wanted(job_id, 1) == LOST
    # It is dispatched again, to this very worker: another delivery, which goes on.
    bench.dispatch()
    start(pulse, bench, job_id, 2)
    assert beat(pulse, bench) == ["woken"], "again, should it not have heeded"
    assert (pulse.stop_wanted(job_id, 1), pulse.stop_wanted(job_id, 2)) == (LOST, None)
    pulse.release(job_id, 1)
    assert pulse.stop_wanted(job_id, 1) is None


def test_a_job_that_somebody_cancels_is_not_lost(bench: Bench, record_job: RecordJob) -> None:
    pulse = Pulse(bench.worker_id, 10)
    job_id = record_job()
    bench.dispatch()
    start(pulse, bench, job_id)
    bench.connection.execute("UPDATE opsjobs.jobs SET cancel_requested_at = clock_timestamp()")
    beat(pulse, bench)
    assert pulse.stop_wanted(job_id, 1) == CANCELED


def test_a_delivery_that_is_not_claimed_yet_is_not_lost(bench: Bench) -> None:
    pulse = Pulse(bench.worker_id, 10)
    pulse.hold(4711, 1)
    assert beat(pulse, bench) == []
    assert pulse.stop_wanted(4711, 1) is None


def test_beats_that_race_claims_and_ends_find_nothing_lost(
    bench: Bench, record_job: RecordJob
) -> None:
    """The main thread claims while the recorder, one thread, writes outcomes and beats."""
    pulse = Pulse(bench.worker_id, 0)
    jobs = [record_job() for _ in range(40)]
    bench.dispatch(window=1000)
    ended: list[int] = []
    woken: list[str] = []
    claimed: list[int] = []
    is_over = threading.Event()

    def record_and_beat() -> None:
        with connect_apart(bench.host.engine) as connection:
            while len(ended) < len(jobs) and not is_over.is_set():
                for job_id in claimed[len(ended) :]:
                    ending = endings.Ending(
                        job_id, 1, bench.worker_id, bench.name, Outcome(kind="returned")
                    )
                    endings.record(connection, [ending], read_clock(connection))
                    pulse.release(job_id, 1)
                    ended.append(job_id)
                    pulse.beat_if_due(connection, lambda: woken.append("woken"))
                pulse.beat_if_due(connection, lambda: woken.append("woken"))

    recorder = threading.Thread(target=record_and_beat)
    recorder.start()
    try:
        for job_id in jobs:
            start(pulse, bench, job_id)
            claimed.append(job_id)
    finally:
        if len(claimed) < len(jobs):
            is_over.set()
        recorder.join(60)
    assert (ended, woken) == (jobs, [])
