"""Holds the runs whose steps a process ended, and advances them soon."""

from __future__ import annotations

import logging

from typing_extensions import override

from ..core.db import Connection
from .advance import advance
from .after_end import MovedJob
from .pending import Pending
from .turn import Advanced


class PendingRuns(Pending):
    """The runs that one process should advance. Not for several threads."""

    name = "workflow"
    advanced = "advanced"
    log = logging.getLogger("flask_opsjobs.workflows")
    note_trouble = "note_trouble"

    def __init__(self, max_args_bytes: int) -> None:
        super().__init__()
        self._max_args_bytes = max_args_bytes

    @staticmethod
    @override
    def _id_of(job: MovedJob) -> int | None:
        return job.workflow_id

    @override
    def _advance_one(self, connection: Connection, id: int) -> Advanced | None:
        return advance(connection, id, self._max_args_bytes)
