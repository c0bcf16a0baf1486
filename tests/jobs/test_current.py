from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

import pytest

from flask_opsjobs import current_job
from flask_opsjobs.errors import OpsJobsError
from flask_opsjobs.jobs.perform.current import Running
from tests.support.jobs import NOW, make_claimed


def test_it_tells_what_was_claimed() -> None:
    claimed = make_claimed(
        "send", queue="mail", attempt=2, max_attempts=3, meta={"a": 1}, tags=["x"], deadline_at=NOW
    )
    with Running(claimed, lambda *_: None) as running:
        job = running.job
        assert current_job() is job
        assert (job.id, job.task, job.queue) == (7, "send", "mail")
        assert (job.attempt, job.max_attempts) == (2, 3)
        assert (job.meta, job.tags) == ({"a": 1}, ("x",))
        assert (job.created_at, job.deadline_at) == (NOW, NOW)
        assert "_teller" not in repr(job)


def test_elsewhere_there_is_none() -> None:
    def ask() -> None:
        with pytest.raises(OpsJobsError, match="no job is running here"):
            current_job()

    ask()
    with Running(make_claimed("send"), lambda *_: None):
        contextvars.Context().run(ask)
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    ask()


def test_progress_is_told_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told: list[Any] = []
    with Running(make_claimed("send"), lambda *progress: told.append(progress)) as running:
        for done in range(1_000):
            running.job.progress(done, 1_000)
        assert told == [(0, 1_000, None)]
        clock[0] += 0.1
        running.job.progress(1_000, 1_000, "nearly")
        assert told[1:] == [(1_000, 1_000, "nearly")]
        running.job.progress(1_001)
        assert len(told) == 2
    assert told[2:] == [(1_001, None, None)]


def test_the_last_progress_is_told_when_the_function_raises() -> None:
    told: list[Any] = []

    def once() -> None:
        with Running(make_claimed("x"), lambda *one: told.append(one)) as running:
            running.job.progress(1)
            running.job.progress(2)
            raise LookupError

    with pytest.raises(LookupError):
        once()
    assert told == [(1, None, None), (2, None, None)]


def test_a_note_is_cut_and_cleaned() -> None:
    told: list[Any] = []
    with Running(make_claimed("x"), lambda *one: told.append(one[2])) as running:
        running.job.progress(1, note="a\0\ud800" + "x" * 1_000)
    assert told == ["a\ufffd\ufffd" + "x" * 497]


@pytest.mark.parametrize("progress", [(-1,), (1.5,), (True,), ("1",), (None,), (1, -1), (2**63,)])
def test_progress_is_a_whole_number(progress: tuple[Any, ...]) -> None:
    told: list[Any] = []
    with (
        Running(make_claimed("x"), lambda *one: told.append(one)) as running,
        pytest.raises(ValueError, match="must be a whole number, 0 or more"),
    ):
        running.job.progress(*progress)
    assert told == []


def test_progress_that_cannot_be_told_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*progress: Any) -> None:
        raise BrokenPipeError

    with Running(make_claimed("x"), broken) as running:
        try:
            raise KeyError("s3cret")
        except KeyError:
            running.job.progress(1)
    assert "the progress of the job could not be passed on (BrokenPipeError" in caplog.text
    assert "s3cret" not in caplog.text
