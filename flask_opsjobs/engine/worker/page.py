"""Shares a page of memory between a child and its parent: the job that the child runs, and its log lines.

The parent reads it at any moment, also after the child was killed.
"""

from __future__ import annotations

import math
import mmap
import struct

from ...jobs.perform.log_tail import Ring

# The id, 0 while no job runs, then dispatch number, begin and limit. Native numbers are written whole. The
# child writes the id last and the parent reads it first, so no id is seen with the begin of another job.
_JOB = struct.Struct("@QQd")
_ID = struct.Struct("@Q")
_BEGIN = struct.Struct("@Qdd")
_LIMIT = struct.Struct("@d")
_LIMIT_AT = _JOB.size
_HEAD_BYTES = _LIMIT_AT + _LIMIT.size


class Page:
    """What a child runs since when. Written by the child, read by its parent.

    >>> page = Page(log_tail_bytes=0)
    >>> page.begin((7, 1), 12.5)
    >>> page.read()
    ((7, 1), 12.5)
    >>> page.end()
    >>> page.read() is None
    True
    """

    def __init__(self, log_tail_bytes: int) -> None:
        ring_bytes = log_tail_bytes + Ring.HEAD_BYTES if log_tail_bytes else 0
        self._memory = mmap.mmap(-1, _HEAD_BYTES + ring_bytes)
        ring = memoryview(self._memory)[_HEAD_BYTES:]
        self.ring = Ring(ring) if log_tail_bytes else None

    def begin(self, key: tuple[int, int], at: float) -> None:
        """Say that a job begins."""
        if self.ring is not None:
            self.ring.clear()
        job_id, number = key
        _BEGIN.pack_into(self._memory, _ID.size, number, at, math.inf)
        _ID.pack_into(self._memory, 0, job_id)

    def limit(self, seconds: float) -> None:
        """Say how long the work that has begun may take."""
        _LIMIT.pack_into(self._memory, _LIMIT_AT, seconds)

    def end(self) -> None:
        """Say that the job and all that belongs to it has ended."""
        _ID.pack_into(self._memory, 0, 0)

    def read(self) -> tuple[tuple[int, int], float] | None:
        """Return the running job and when it began; None when there is none."""
        job_id, number, at = _JOB.unpack_from(self._memory)
        return ((job_id, number), at) if job_id else None

    def read_limit(self) -> float:
        """Return how long the work that has begun may take, as far as the child has said it."""
        found: float = _LIMIT.unpack_from(self._memory, _LIMIT_AT)[0]
        return found

    def log_tail(self) -> str | None:
        """Return the last log lines of the job; None when there are none."""
        return (self.ring.read() or None) if self.ring is not None else None
