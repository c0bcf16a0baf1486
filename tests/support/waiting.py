"""Waiting for something to become true, the only place of the tests that lets time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# The time between two questions: a share of the time waited so far, and within these bounds in seconds.
_SHARE = 0.1
_SHORTEST, _LONGEST = 0.005, 0.1


def wait_until(
    condition: Callable[[], T],
    timeout: float = 30,
    *,
    what: str | Callable[[], str] = "",
    every: float | None = None,
) -> T:
    """What `condition` returns, as soon as that is true. Fails the test after `timeout` seconds.

    It is asked often at first and then less often, which leaves the processors to what is waited for; or
    `every` so many seconds. `what` completes "waited … s for", or is asked for these words at the end;
    without it the condition's own name or source stands there.
    """
    begun = time.monotonic()
    while True:
        answer = condition()
        if answer:
            return answer
        waited = time.monotonic() - begun
        if waited >= timeout:
            words = what() if callable(what) else what
            named = words or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"waited {timeout:g} s for {named}; last answer: {answer!r}")
        time.sleep(every or min(max(waited * _SHARE, _SHORTEST), _LONGEST))
