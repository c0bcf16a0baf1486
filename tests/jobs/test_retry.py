from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs.perform.backoff import MOST_SECONDS, backoff_seconds, default_seconds
from flask_opsjobs.jobs.record.task import Task


class Loaded:
    """Dice that always fall the same way."""

    def __init__(self, answer: float) -> None:
        self.answer = answer

    def random(self) -> float:
        return self.answer


LOW, HIGH = Loaded(0.0), Loaded(1.0)


def make(backoff: Any) -> Task:
    return OpsJobs().task(name="once", backoff=backoff)(lambda: None)


def test_the_default_doubles_up_to_an_hour() -> None:
    assert [default_seconds(attempt, HIGH) for attempt in range(1, 11)] == [
        15,
        30,
        60,
        120,
        240,
        480,
        960,
        1920,
        3600,
        3600,
    ]
    assert [default_seconds(attempt, LOW) for attempt in (1, 2, 3)] == [7.5, 15, 30]


@given(st.integers(-10, 10**9), st.integers())
def test_the_default_is_bounded_for_any_attempt(attempt: int, seed: int) -> None:
    assert 7.5 <= default_seconds(attempt, random.Random(seed)) <= MOST_SECONDS


def test_an_unknown_worker_has_the_default() -> None:
    assert backoff_seconds(None, 2, HIGH) == 30


def test_a_number_or_a_function_of_the_attempt() -> None:
    assert backoff_seconds(make(0), 3) == 0
    assert backoff_seconds(make(2.5), 3) == 2.5
    assert backoff_seconds(make(timedelta(minutes=1)), 3) == 60
    assert backoff_seconds(make(lambda attempt: attempt * 10), 3) == 30
    assert backoff_seconds(make(lambda attempt: timedelta(hours=attempt)), 3) == 10_800


@pytest.mark.parametrize(
    "answer",
    [-1, float("nan"), float("inf"), None, "5", True, 10**400, timedelta(seconds=-1), object()],
)
def test_an_answer_that_is_no_duration_is_logged_and_replaced(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert backoff_seconds(make(lambda attempt: answer), 2, HIGH) == 30
    assert "the backoff of task once is a" in caplog.text


def test_a_function_that_raises_is_logged_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    assert backoff_seconds(make(lambda attempt: 1 / 0), 2, HIGH) == 30
    assert "the backoff of task once raised" in caplog.text
    assert "ZeroDivisionError" in caplog.text
