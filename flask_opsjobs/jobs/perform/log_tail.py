"""Keeps the last lines that an attempt logged, in a ring of shared memory that survives a killed process."""

from __future__ import annotations

import logging
import struct
import time
from functools import cached_property

from ..record.json_storage import clean_text
from . import describe_error

_HEAD = struct.Struct("<QQ")
_ONE = struct.Struct("<Q")
_CUT = "…".encode()


class Ring:
    """A ring buffer of the newest lines.

    When the writer is killed in the middle of a line, only that line is lost. The first 16 bytes hold two
    counters: bytes whose writing began, and bytes whose writing ended. A write that began and did not end may
    have overwritten the oldest bytes, so the reader leaves them out.
    """

    HEAD_BYTES = _HEAD.size

    def __init__(self, buffer: memoryview) -> None:
        """Takes a buffer that is zeroed or holds an earlier ring.

        Raises `ValueError` when it has under 16 bytes.
        """
        self._head = buffer[: _HEAD.size]
        self._body = buffer[_HEAD.size :]
        self._size = len(self._body)
        if len(self._head) < _HEAD.size:
            raise ValueError(f"a ring needs at least {_HEAD.size} bytes")

    @cached_property
    def handler(self) -> TailHandler:
        """The handler that writes to this ring, the same for all attempts: logging remembers each new one."""
        return TailHandler(self)

    def clear(self) -> None:
        """Remove all lines."""
        _HEAD.pack_into(self._head, 0, 0, 0)

    def write(self, line: bytes) -> None:
        """Add a line, given without a line break. A line longer than half the ring is cut at its end."""
        size = self._size
        if len(line) >= size // 2:
            # The mark … tells a display policy that a secret may be cut off here.
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
        """The complete lines, oldest first; empty when there are none. Never raises."""
        begun, done = _HEAD.unpack_from(self._head, 0)
        start = max(0, max(begun, done) - self._size)
        if start >= done:
            return ""
        at, end = start % self._size, done % self._size
        pieces = [self._body[at:end]] if at < end else [self._body[at:], self._body[:end]]
        raw = b"".join(pieces)
        if start:
            # Drop the oldest line: its beginning was overwritten.
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
        except Exception:  # the arguments of a record may raise anything when they are formatted
            self._ring.write(b"a record of %b could not be formatted" % record.name.encode())

    def _format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            # Formatting a time costs more than everything else here.
            self._second, self._clock = second, time.strftime("%H:%M:%S", time.gmtime(second))
        text = (
            f"{self._clock}.{int(record.msecs):03d} {record.levelname} {record.name}: "
            f"{record.getMessage()}"
        )
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + describe_error.traceback_of(record.exc_info[1]).rstrip()
        return text


class Capture:
    """A block in which every record of the root logger is also written to the ring; None writes nothing."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Ring | None) -> None:
        self._ring = ring

    def __enter__(self) -> None:
        if self._ring is not None:
            logging.getLogger().addHandler(self._ring.handler)

    def __exit__(self, *_error: object) -> None:
        if self._ring is not None:
            logging.getLogger().removeHandler(self._ring.handler)
