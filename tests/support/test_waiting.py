"""Waiting says what it waited for, and a child that ends early shows its log."""

from __future__ import annotations

from itertools import count

import pytest

from tests.support.processes import Children
from tests.support.waiting import wait_until


def test_waiting_returns_what_came_true() -> None:
    numbers = count()
    assert wait_until(lambda: next(numbers) or None) == 1


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for a miracle; last answer: False"):
        wait_until(lambda: False, 0.05, what="a miracle")


def test_a_child_that_ends_early_shows_its_log(children: Children) -> None:
    child = children.python("-c", "print('only this')")
    with pytest.raises(AssertionError, match="only this"):
        child.wait_for("something else")
    assert child.exit_code == 0
