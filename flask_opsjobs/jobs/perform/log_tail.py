"""Keeps the last lines that an attempt logged, in a ring of shared memory that survives a killed process."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..record.json_storage import clean_text
from . import failure

_HEAD = struct.Struct("<QQ")
_ONE = struct.Struct("<Q")
_CUT = "…".encode()


class Ring:
    """The newest lines written to a buffer. A writer killed in the middle of a line costs that line, no other.

    The first 16 bytes say how many bytes were ever begun and how many were completed. The reader takes what is whole:
    what was begun and not completed has overwritten the oldest bytes, which it leaves out.
    """

    HEAD_BYTES = _HEAD.size

    def __init__(self, buffer: memoryview) -> None:
        """The buffer's bytes, zeroed or left by an earlier ring. Raises `ValueError` without room for a head."""
        self._head = buffer[: _HEAD.size]
        self._body = buffer[_HEAD.size :]
        self._size = len(self._body)
        if len(self._head) < _HEAD.size:
            raise ValueError(f"a ring needs at least {_HEAD.size} bytes")

    def clear(self) -> None:
        """Forget all lines."""
        _HEAD.pack_into(self._head, 0, 0, 0)

    def write(self, line: bytes) -> None:
        """Add a line, without its line break. Of a line longer than half the ring the beginning is kept."""
        size = self._size
        if len(line) >= size // 2:
            # The mark tells a display policy that a secret may have lost its end.
            line = line[: max(0, size // 2 - 1 - len(_CUT))] + _CUT
        line += b"\n"
        if len(line) > size:
            return
        (done,) = _ONE.unpack_from(self._head, 8)
        end = done + len(line)
        _ONE.pack_into(self._head, 0, end)
        at = done % size
        first = size - at
        if len(line) <= first:
            self._body[at : at + len(line)] = line
        else:
            self._body[at:] = line[:first]
            self._body[: len(line) - first] = line[first:]
        _ONE.pack_into(self._head, 8, end)

    def read(self) -> str:
        """The lines that are whole, oldest first; empty when there are none. Never raises."""
        begun, done = _HEAD.unpack_from(self._head, 0)
        start = max(0, max(begun, done) - self._size)
        if start >= done:
            return ""
        at, end = start % self._size, done % self._size
        pieces = [self._body[at:end]] if at < end else [self._body[at:], self._body[:end]]
        raw = b"".join(pieces)
        if start:
            # What is left of the oldest line has lost its beginning.
            raw = raw[raw.find(b"\n") + 1 :]
        return clean_text(raw.decode("utf-8", "replace")).removesuffix("\n")


class TailHandler(logging.Handler):
    """Writes every record to a ring as `12:34:56.789 WARNING name: message`, in UTC. Never raises."""

    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self._ring = ring
        self._second = -1
        self._clock = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._ring.write(self._format(record).encode("utf-8", "replace"))
        except Exception:  # whatever a record's arguments do when they are formatted
            self._ring.write(b"a record of %b could not be formatted" % record.name.encode())

    def _format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            # Formatting a time costs more than all the rest.
            self._second, self._clock = second, time.strftime("%H:%M:%S", time.gmtime(second))
        text = (
            f"{self._clock}.{int(record.msecs):03d} {record.levelname} {record.name}: "
            f"{record.getMessage()}"
        )
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + failure.traceback_of(record.exc_info[1]).rstrip()
        return text


@contextmanager
def capture(ring: Ring | None) -> Iterator[None]:
    """In this block everything that reaches the root logger is also written to the ring."""
    if ring is None:
        yield
        return
    handler = TailHandler(ring)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
