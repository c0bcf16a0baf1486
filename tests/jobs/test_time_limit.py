from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from flask_opsjobs.jobs.perform.perform import JobTimedOut, TimeLimit
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _alarm_is_given_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.setitimer(signal.ITIMER_REAL, 0) == (0.0, 0.0)


def spin(seconds: float = 10) -> None:
    """Busy, as a function is that never waits."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_it_ends_the_block() -> None:
    began = time.monotonic()
    with pytest.raises(JobTimedOut, match=r"ran longer than 0\.05 s"), TimeLimit(0.05):
        spin()
    assert time.monotonic() - began < 5


def test_it_ends_a_wait_too() -> None:
    with pytest.raises(JobTimedOut), TimeLimit(0.05):
        threading.Event().wait(10)


def test_a_function_cannot_take_it_for_its_own() -> None:
    def once() -> None:
        try:
            spin()
        except Exception:
            pytest.fail("it was caught by `except Exception`")

    with pytest.raises(JobTimedOut), TimeLimit(0.05):
        once()


def test_nothing_happens_in_time() -> None:
    with TimeLimit(5):
        pass
    with TimeLimit(None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_alarm_that_was_set_before_goes_on() -> None:
    """RQ's own time limit, for one, which encloses ours."""
    rung: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with TimeLimit(30):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 20
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.2
        wait_until(lambda: rung, what="the alarm that was set before")
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with TimeLimit(30):
            spin(0.05)
        wait_until(lambda: len(rung) == 2, what="an alarm that became due inside of ours")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_swallowed_alarm_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_opsjobs.jobs.perform.perform._AGAIN_SECONDS", 0.05)
    swallowed: list[BaseException] = []

    def once() -> None:
        while len(swallowed) < 2:
            try:
                spin()
            except BaseException as error:
                swallowed.append(error)
        spin()

    with pytest.raises(JobTimedOut), TimeLimit(0.05):
        once()
    assert len(swallowed) == 2


def test_after_disarm_the_alarm_finds_nothing() -> None:
    limit = TimeLimit(0.05)
    with limit:
        limit.disarm()
        limit.disarm()
        spin(0.1)


def test_in_another_thread_there_is_no_limit() -> None:
    done: list[bool] = []

    def run() -> None:
        with TimeLimit(0.01):
            spin(0.05)
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]
