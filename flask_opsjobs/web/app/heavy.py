"""Limits how many searches, exports and simulations a process runs at once; beyond that it answers 503."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Response

from . import problems as _problems
from .host import host


@contextmanager
def heavy(is_heavy: bool = True) -> Iterator[None]:
    """A block that is one of the few. Raises `Problem` when there is no room for it."""
    if not is_heavy:
        yield
        return
    _enter()
    try:
        yield
    finally:
        host().heavy.leave()


def stream(answer: Callable[[], Response]) -> Response:
    """What `answer` streams. It is one of the few until its last line is sent, or until nobody reads it any more."""
    _enter()
    leave = host().heavy.leave
    try:
        response = answer()
    except BaseException:
        leave()
        raise
    # Called once: when the server closes the response, or when a hook of the host's drops it for another one.
    response.call_on_close(weakref.finalize(response, leave))
    return response


def _enter() -> None:
    if not host().heavy.enter():
        raise _problems.heavy_busy(host().heavy.most)
