"""Sends JSON frames from a child to its parent over a socket. The parent ignores incomplete frames."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict
from typing import Any

from ...jobs.perform.outcomes import Outcome

_HEAD = struct.Struct(">I")
_READ_BYTES = 1 << 18


class Sender:
    """The child's end. It blocks until the parent has read, so an outcome may have any size."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def progress(self, done: int | None, total: int | None, note: str | None) -> None:
        """Send the progress of the job."""
        self._send({"progress": [done, total, note]})

    def outcome(self, outcome: Outcome) -> None:
        """Send the outcome. It is the last frame."""
        self._send({"outcome": asdict(outcome)})

    def _send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        self._sock.sendall(_HEAD.pack(len(body)) + body)


class Receiver:
    """The parent's end. It never blocks, and never raises on what a dying child wrote."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = bytearray()
        self.progress: tuple[int | None, int | None, str | None] | None = None
        self.outcome: Outcome | None = None
        self.is_open = True

    def fileno(self) -> int:
        """Return the file descriptor, for `poll`."""
        return self._sock.fileno()

    def read(self) -> None:
        """Read what has arrived; then `progress` and `outcome` hold the newest of each."""
        while self.is_open:
            try:
                piece = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self.is_open = False
            self._buffer += piece
        self._take_frames()

    def _take_frames(self) -> None:
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._buffer, at)
            if len(self._buffer) - at - _HEAD.size < size:
                break
            self._take(json.loads(self._buffer[at + _HEAD.size : at + _HEAD.size + size]))
            at += _HEAD.size + size
        del self._buffer[:at]

    def _take(self, frame: dict[str, Any]) -> None:
        if "progress" in frame:
            done, total, note = frame["progress"]
            self.progress = (done, total, note)
        if "outcome" in frame:
            found = frame["outcome"]
            if found["progress"] is not None:
                found["progress"] = tuple(found["progress"])
            self.outcome = Outcome(**found)
