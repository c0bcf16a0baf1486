"""Waiting for something to become true, the only place of the tests that lets time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], timeout: float = 10, *, what: str = "", every: float = 0.02
) -> T:
    """What `condition` returns, as soon as that is true. Fails the test after `timeout` seconds.

    `what` completes "waited … s for"; without it the condition's own name or source stands there.
    """
    end = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            named = what or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"waited {timeout:g} s for {named}; last answer: {answer!r}")
        time.sleep(every)
