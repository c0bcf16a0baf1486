"""Stands where the dispatcher of a host's process does, with functions of a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class AfterCommit:
    """Calls `push` with the notes of each committed session;
    without `has_room` no job is inserted as `queued`.
    """

    push: Callable[[Sequence[Any]], None]
    has_room: Callable[[str], bool] = lambda _queue: False
