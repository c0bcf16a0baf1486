"""Kills this process between two statements; child processes of tests import it."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import psycopg

# What each of these does at once, Postgres gets as one message.
_SENDING = (
    (psycopg.Cursor, "execute"),
    (psycopg.Cursor, "copy"),
    (psycopg.Connection, "commit"),
    (psycopg.Transaction, "__exit__"),
)


def die_before(number: int) -> None:
    """From now on count statements and commits, and SIGKILL this process before that one."""
    counted = itertools.count(1)
    for kind, name in _SENDING:
        _count(kind, name, counted, number)


def _count(kind: Any, name: str, counted: itertools.count[int], number: int) -> None:
    send = getattr(kind, name)

    def count_and_send(*args: Any, **kwargs: Any) -> Any:
        if next(counted) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return send(*args, **kwargs)

    setattr(kind, name, count_and_send)
