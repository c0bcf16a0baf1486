"""Holds the runs whose steps a process ended, and advances them soon."""

from __future__ import annotations

import logging
import time

from typing_extensions import override

from ..core.db import Connection
from .advance import MOST_STEPS, advance
from .after_end import MovedJob
from .pending import Pending
from .turn import Advanced

# A turn locks a run and jobs. When one takes longer than this, as on a busy machine, the next ones take half
# as many steps, and twice as many again after a turn of half the time.
_LONG_SECONDS = 0.08
_FEWEST_STEPS = 50


class PendingRuns(Pending):
    """The runs that one process should advance. Not for several threads."""

    name = "workflow"
    advanced = "advanced"
    log = logging.getLogger("flask_opsjobs.workflows")
    note_trouble = "note_trouble"

    def __init__(self, max_args_bytes: int) -> None:
        super().__init__()
        self._max_args_bytes = max_args_bytes
        self._most_steps = MOST_STEPS

    @staticmethod
    @override
    def _id_of(job: MovedJob) -> int | None:
        return job.workflow_id

    @override
    def _advance_one(self, connection: Connection, id: int) -> Advanced | None:
        began = time.monotonic()
        done = advance(connection, id, self._max_args_bytes, most=self._most_steps)
        seconds = time.monotonic() - began
        if seconds > _LONG_SECONDS:
            self._most_steps = max(_FEWEST_STEPS, self._most_steps // 2)
        elif seconds < _LONG_SECONDS / 2:
            self._most_steps = min(MOST_STEPS, self._most_steps * 2)
        return done
