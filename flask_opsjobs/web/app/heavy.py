"""Limits how many searches, exports and simulations a process runs at once. More of them get a 503."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Response

from . import problems
from .host import host


@contextmanager
def heavy(is_heavy: bool = True) -> Iterator[None]:
    """A block that takes one of the places. Raises the 503 `Problem` when all are taken."""
    if not is_heavy:
        yield
        return
    _enter()
    try:
        yield
    finally:
        host().heavy.leave()


def stream(answer: Callable[[], Response]) -> Response:
    """The response of `answer`. It takes a place until its last line is sent or the client is gone."""
    _enter()
    leave = host().heavy.leave
    try:
        response = answer()
    except BaseException:
        leave()
        raise
    # Runs once: when the server closes the response, or when a hook of the host's replaces it.
    response.call_on_close(weakref.finalize(response, leave))
    return response


def _enter() -> None:
    if not host().heavy.enter():
        raise problems.heavy_busy(host().heavy.most)
