"""Holds the batches whose members a process ended, and folds them soon."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from typing_extensions import override

from ..core import sql
from ..core.db import Connection
from .after_end import MovedJob
from .fold import fold
from .pending import Pending
from .turn import Advanced


class PendingBatches(Pending):
    """The batches that one process should fold. Not for several threads.

    With `only_last`, those that have an open member are not folded: they are left to the end of their last
    member, and to the fold loop.
    """

    name = "batch"
    advanced = "folded"
    log = logging.getLogger("flask_opsjobs.batches")
    note_trouble = "note_trouble_of_batch"

    def __init__(self, *, only_last: bool = False) -> None:
        super().__init__()
        self._only_last = only_last

    @staticmethod
    @override
    def _id_of(job: MovedJob) -> int | None:
        return job.batch_id

    @override
    def _choose(self, connection: Connection, due: Sequence[int]) -> Sequence[int]:
        if not self._only_last:
            return due
        found = connection.execute(
            sql.load("find_batches_without_open_members"), {"ids": list(due)}
        )
        return [batch for (batch,) in found]

    @override
    def _advance_one(self, connection: Connection, id: int) -> Advanced | None:
        return fold(connection, id)
